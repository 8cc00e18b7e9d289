// Java's PKIX on a chain of ours: java verify.java ROOTS CHAIN AT [CRLS]. Exit 0 accepted, 1 refused, 2 trouble.

import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.*;
import java.util.*;
import java.util.stream.Collectors;

class Verify {
    static final CertificateFactory X509;

    static {
        try {
            X509 = CertificateFactory.getInstance("X.509");
        } catch (CertificateException error) {
            throw new IllegalStateException(error);
        }
    }

    static List<X509Certificate> certificates(String path) throws Exception {
        var found = X509.generateCertificates(new ByteArrayInputStream(Files.readAllBytes(Path.of(path))));
        return found.stream().map(one -> (X509Certificate) one).toList();
    }

    public static void main(String[] args) throws Exception {
        var anchors = certificates(args[0]).stream().map(root -> new TrustAnchor(root, null)).collect(Collectors.toSet());
        try {
            var chain = certificates(args[1]);
            var leaf = chain.get(0);
            var target = new X509CertSelector();
            target.setCertificate(leaf);
            target.setExtendedKeyUsage(Set.of("1.3.6.1.5.5.7.3.2"));
            var parameters = new PKIXBuilderParameters(anchors, target);
            parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(chain)));
            parameters.setDate(new Date(Long.parseLong(args[2]) * 1000));
            parameters.setRevocationEnabled(args.length > 3);
            if (args.length > 3) {
                var lists = X509.generateCRLs(new ByteArrayInputStream(Files.readAllBytes(Path.of(args[3]))));
                parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
            }
            CertPathBuilder.getInstance("PKIX").build(parameters);
            var names = leaf.getSubjectAlternativeNames().stream().filter(name -> name.get(0).equals(6)).toList();
            if (names.size() != 1) throw new CertificateException(names.size() + " URIs");
            System.out.println("accepted " + names.get(0).get(1) + " " + leaf.getSerialNumber().toString(16));
        } catch (CertPathBuilderException | CertificateException | CRLException error) {
            var cause = error.getCause() == null ? error : error.getCause();
            System.out.println("refused: " + cause.getMessage());
            System.exit(1);
        }
    }
}
