// Go's crypto/x509 on a chain of ours: verify ROOTS CHAIN AT [CRLS]. Exit 0 accepted, 1 refused, 2 trouble.
// The library has no revocation check of its own, so the lists are asked here with what it offers: the issuer's
// signature, nextUpdate, and the serial numbers.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

func trouble(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "trouble:", err)
		os.Exit(2)
	}
}

func refuse(err error) {
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func blocks(path string, kind string) [][]byte {
	rest, err := os.ReadFile(path)
	trouble(err)
	var found [][]byte
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return found
		}
		if block.Type == kind {
			found = append(found, block.Bytes)
		}
	}
}

func certificates(path string) []*x509.Certificate {
	var found []*x509.Certificate
	for _, der := range blocks(path, "CERTIFICATE") {
		certificate, err := x509.ParseCertificate(der)
		refuse(err)
		found = append(found, certificate)
	}
	return found
}

func revoked(certificate, issuer *x509.Certificate, lists []*x509.RevocationList, at time.Time) error {
	for _, list := range lists {
		if !bytes.Equal(list.RawIssuer, certificate.RawIssuer) {
			continue
		}
		if err := list.CheckSignatureFrom(issuer); err != nil {
			return err
		}
		if !at.Before(list.NextUpdate) {
			return errors.New("the list is stale")
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				return errors.New("revoked")
			}
		}
		return nil
	}
	return errors.New("no list of its issuer")
}

func main() {
	roots, above := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range certificates(os.Args[1]) {
		roots.AddCert(root)
	}
	chain := certificates(os.Args[2])
	for _, certificate := range chain[1:] {
		above.AddCert(certificate)
	}
	seconds, err := strconv.ParseInt(os.Args[3], 10, 64)
	trouble(err)
	at := time.Unix(seconds, 0)
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	paths, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: above, CurrentTime: at, KeyUsages: usages})
	refuse(err)
	if len(os.Args) > 4 {
		var lists []*x509.RevocationList
		for _, der := range blocks(os.Args[4], "X509 CRL") {
			list, err := x509.ParseRevocationList(der)
			refuse(err)
			lists = append(lists, list)
		}
		path := paths[0]
		for place := range path[:len(path)-1] {
			refuse(revoked(path[place], path[place+1], lists, at))
		}
	}
	if len(chain[0].URIs) != 1 {
		refuse(fmt.Errorf("%d URIs", len(chain[0].URIs)))
	}
	fmt.Println("accepted", chain[0].URIs[0], chain[0].SerialNumber.Text(16))
}
