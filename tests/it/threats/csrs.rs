//! Section H once more, with requests that OpenSSL and certtool made, with names in every wrong spelling, and with
//! DER that was broken at each of its places. As in [`super::x509`], all come with one piece of evidence, which
//! still opens a task at the end.

use std::{fs, path::Path, process::Command};

use rcgen::{KeyPair, SigningKey};
use tempfile::TempDir;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::x509::{Desk, SUBJECT_ALT_NAME, dns, names, uri};
use crate::{
    certs::{ECDSA_SHA256, EXTENSION_REQUEST, Hand, NAME, attribute, der, openssl, text},
    foreign::skipped,
};

/// Makes requests with the tools of others; a tool that cannot make one is told apart from one that failed.
struct Shop(TempDir);

impl Shop {
    fn open() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A request by OpenSSL: how to make the key, and what `req` is told beside.
    fn openssl(&self, key: &[&str], more: &[&str]) -> Option<Vec<u8>> {
        let (file, out) = (self.at("openssl.key"), self.at("openssl.csr"));
        if !openssl(&[&["genpkey", "-out", &file], key].concat()).0 {
            return None;
        }
        let fixed = ["req", "-new", "-key", &file, "-subj", "/CN=x", "-outform", "DER", "-out", &out];
        openssl(&[&fixed[..], more].concat()).0.then(|| fs::read(&out).unwrap())
    }

    /// One by certtool: its key, the template's lines, and other options.
    fn certtool(&self, key: &[&str], template: &str, more: &[&str]) -> Option<Vec<u8>> {
        let [file, lines, out] = ["certtool.key", "certtool.cfg", "certtool.csr"].map(|name| self.at(name));
        fs::write(&lines, format!("cn = \"x\"\n{template}")).unwrap();
        if !certtool(&[&["--generate-privkey", "--outfile", &file], key].concat(), self.0.path()) {
            return None;
        }
        let fixed =
            ["--generate-request", "--load-privkey", &file, "--template", &lines, "--outder", "--outfile", &out];
        certtool(&[&fixed[..], more].concat(), self.0.path()).then(|| fs::read(&out).unwrap())
    }
}

fn certtool(arguments: &[&str], work: &Path) -> bool {
    Command::new("certtool").args(arguments).current_dir(work).output().unwrap().status.success()
}

/// What `openssl genpkey` is told for a curve.
fn curve(name: &str) -> [String; 6] {
    let named = format!("ec_paramgen_curve:{name}");
    ["-algorithm", "EC", "-pkeyopt", &named, "-pkeyopt", "ec_param_enc:named_curve"].map(str::to_owned)
}

fn rsa(bits: &str) -> [String; 4] {
    ["-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")].map(str::to_owned)
}

fn slices(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const GNUTLS_P256: &[&str] = &["--key-type", "ecdsa", "--curve", "secp256r1"];

/// Only the key of the request, a name of ours, and nothing that a CA could do.
async fn takes(desk: &mut Desk, what: &str, request: &[u8]) {
    desk.renew();
    let leaf = desk.granted(what, &text(request)).await;
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let (_, asked) = x509_parser::certification_request::X509CertificationRequest::from_der(request).unwrap();
    assert_eq!(leaf.public_key().raw, asked.certification_request_info.subject_pki.raw, "{what}");
    assert!(leaf.subject().to_string() == "CN=oldkeys" && !leaf.is_ca(), "{what}");
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.flags.count_ones() == 1, "{what}");
}

#[tokio::test]
async fn t_128_what_openssl_makes_is_taken_or_refused_by_its_key() {
    let (mut desk, shop) = (Desk::new("oldkeys"), Shop::open());
    let made = |key: &[&str]| shop.openssl(key, &[]);
    takes(&mut desk, "P-256", &made(P256).unwrap()).await;
    takes(&mut desk, "Ed25519", &made(&["-algorithm", "ED25519"]).unwrap()).await;
    for bits in ["2048", "3072", "4096"] {
        takes(&mut desk, bits, &made(&slices(&rsa(bits))).unwrap()).await;
    }
    desk.renew();
    for bits in ["1024", "2040", "4104"] {
        desk.refused(bits, &text(&made(&slices(&rsa(bits))).unwrap())).await;
    }
    for name in ["P-224", "secp256k1", "P-384", "P-521", "brainpoolP256r1"] {
        desk.refused(name, &text(&made(&slices(&curve(name))).unwrap())).await;
    }
    let explicit = [P256, &["-pkeyopt", "ec_param_enc:explicit"]].concat();
    desk.refused("explicit", &text(&made(&explicit).unwrap())).await;
    desk.refused("Ed448", &text(&made(&["-algorithm", "ED448"]).unwrap())).await;
    let pss = ["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"];
    desk.refused("a key for PSS only", &text(&made(&pss).unwrap())).await;
    let parameters = shop.at("dsa.params");
    let bits = ["-pkeyopt", "dsa_paramgen_bits:1024", "-out", &parameters];
    assert!(openssl(&[&["genpkey", "-genparam", "-algorithm", "DSA"], &bits[..]].concat()).0);
    desk.refused("DSA", &text(&made(&["-paramfile", &parameters]).unwrap())).await;
    takes(&mut desk, "and then one that is good", &made(P256).unwrap()).await;
}

#[tokio::test]
async fn t_129_what_openssl_signed_weakly_is_refused() {
    let (mut desk, shop) = (Desk::new("oldkeys"), Shop::open());
    let mut made = 0;
    for digest in ["-sha1", "-md5", "-sha224", "-sha3-256"] {
        for key in [P256.to_vec(), slices(&rsa("2048"))] {
            // Not every pair has an identifier.
            let Some(request) = shop.openssl(&key, &[digest]) else { continue };
            desk.refused(digest, &text(&request)).await;
            made += 1;
        }
    }
    assert!(made >= 5, "{made}");
    let pss = ["-sigopt", "rsa_padding_mode:pss"];
    desk.refused("PSS", &text(&shop.openssl(&slices(&rsa("2048")), &pss).unwrap())).await;
    takes(&mut desk, "the usual", &shop.openssl(P256, &["-sha256"]).unwrap()).await;
}

#[tokio::test]
async fn t_123_what_openssl_asks_beyond_a_leaf_is_refused() {
    let (mut desk, shop) = (Desk::new("oldkeys"), Shop::open());
    for extension in [
        "basicConstraints=critical,CA:TRUE",
        "basicConstraints=CA:TRUE,pathlen:0",
        "keyUsage=critical,keyCertSign,cRLSign",
        "extendedKeyUsage=anyExtendedKeyUsage",
        "extendedKeyUsage=serverAuth,clientAuth",
        "extendedKeyUsage=OCSPSigning",
        "subjectAltName=DNS:evil.example.org",
        "subjectAltName=IP:10.0.0.1",
        "subjectAltName=email:a@example.org",
        "subjectAltName=URI:spiffe://example.org/admin/ci/shop",
        "subjectAltName=dirName:folder",
        "subjectAltName=otherName:1.2.3.4;UTF8:admin",
        "subjectAltName=RID:1.2.3.4",
        "nameConstraints=permitted;DNS:example.org",
        "certificatePolicies=1.2.3.4",
        "crlDistributionPoints=URI:http://evil.example.org/x.crl",
        "authorityInfoAccess=OCSP;URI:http://evil.example.org",
        "tlsfeature=status_request",
        "noCheck=ignored",
        "1.2.3.4=critical,DER:05:00",
    ] {
        let config = shop.at("openssl.cnf");
        fs::write(&config, "[req]\ndistinguished_name=dn\n[dn]\n[folder]\nCN=admin\n").unwrap();
        let request = shop.openssl(P256, &["-config", &config, "-addext", extension]);
        desk.refused(extension, &text(&request.unwrap_or_else(|| panic!("openssl makes no {extension}")))).await;
    }
    let harmless = ["-addext", "extendedKeyUsage=clientAuth", "-addext", "basicConstraints=critical,CA:FALSE"];
    takes(&mut desk, "what is granted anyway", &shop.openssl(P256, &harmless).unwrap()).await;
}

#[tokio::test]
async fn t_128_what_certtool_makes_is_taken_or_refused_by_its_key() {
    if skipped("certtool") {
        return;
    }
    let (mut desk, shop) = (Desk::new("oldkeys"), Shop::open());
    takes(&mut desk, "P-256", &shop.certtool(GNUTLS_P256, "", &[]).unwrap()).await;
    takes(&mut desk, "Ed25519", &shop.certtool(&["--key-type", "ed25519"], "", &[]).unwrap()).await;
    for bits in ["2048", "3072", "4096"] {
        let key = ["--key-type", "rsa", "--bits", bits];
        takes(&mut desk, bits, &shop.certtool(&key, "signing_key\n", &[]).unwrap()).await;
    }
    desk.renew();
    for (what, key) in [
        ("1024", &["--key-type", "rsa", "--bits", "1024"][..]),
        ("P-192", &["--key-type", "ecdsa", "--curve", "secp192r1"]),
        ("P-224", &["--key-type", "ecdsa", "--curve", "secp224r1"]),
        ("P-384", &["--key-type", "ecdsa", "--curve", "secp384r1"]),
        ("Ed448", &["--key-type", "ed448"]),
        ("RSA-PSS", &["--key-type", "rsa-pss", "--bits", "2048"]),
        ("DSA", &["--key-type", "dsa", "--bits", "1024"]),
    ] {
        // Some builds have no such key to give, and so nothing to refuse.
        let Some(request) = shop.certtool(key, "", &[]) else { continue };
        desk.refused(what, &text(&request)).await;
    }
    for (what, template) in [
        ("a CA", "ca\ncert_signing_key\n"),
        ("a CA of no depth", "ca\npath_len = 0\n"),
        ("a signer of lists", "ca\ncrl_signing_key\n"),
        ("encipherment", "encryption_key\n"),
        ("a server", "tls_www_server\n"),
        ("a signer of OCSP", "ocsp_signing_key\n"),
        ("a host", "dns_name = \"evil.example.org\"\n"),
        ("an address", "ip_address = \"10.0.0.1\"\n"),
        ("mail", "email = \"a@example.org\"\n"),
        ("another SPIFFE ID", "uri = \"spiffe://example.org/admin/ci/shop\"\n"),
        ("a password", "challenge_password = \"secret\"\n"),
    ] {
        let request = shop.certtool(&["--key-type", "rsa", "--bits", "2048"], template, &[]);
        desk.refused(what, &text(&request.unwrap_or_else(|| panic!("certtool makes no {what}")))).await;
    }
    if let Some(request) = shop.certtool(GNUTLS_P256, "", &["--hash", "SHA1"]) {
        desk.refused("SHA-1", &text(&request)).await;
    }
    let own = format!("uri = \"{}\"\ntls_www_client\n", NAME.replace("migrate", "oldkeys"));
    takes(&mut desk, "its own name", &shop.certtool(GNUTLS_P256, &own, &[]).unwrap()).await;
}

#[tokio::test]
async fn t_131_a_host_in_another_spelling_or_a_pattern_is_not_granted() {
    let desk = Desk::new("serve");
    let long = "a".repeat(63);
    let whole = format!("{}.example.org", [&long[..]; 4].join("."));
    for name in [
        "*.example.org",
        "*",
        "*.*.org",
        "a*.example.org",
        "*i.example.org",
        "api.example.org.",
        ".api.example.org",
        "api..example.org",
        "API.example.org",
        "api_x.example.org",
        "_api.example.org",
        "xn--pi-hia.example.org",
        "api.xn--exmple-cua.org",
        "xn--example-.org",
        "10.0.0.1",
        "[::1]",
        "api.example.org:443",
        "api.example.org/x",
        "api.example.org ",
        " api.example.org",
        "api.example.org,evil.example.org",
        "api.example.org\0.evil.org",
        "-api.example.org",
        "api-.example.org",
        "example.org",
        "org",
        "a.api.example.org",
        "evilapi.example.org",
        &whole,
        &format!("{long}a.example.org"),
        "",
    ] {
        let request = Hand::asking(&desk.key, &[(SUBJECT_ALT_NAME, der(0x30, &[&der(0x82, &[name.as_bytes()])]))]);
        desk.refused(name, &text(&request.by(&desk.key))).await;
    }
    let umlaut =
        Hand::asking(&desk.key, &[(SUBJECT_ALT_NAME, der(0x30, &[&der(0x82, &["äpi.example.org".as_bytes()])]))]);
    desk.refused("a U-label", &text(&umlaut.by(&desk.key))).await;
    let own = "spiffe://example.org/serve/ci/shop";
    for bad in [
        "spiffe://example.org:443/serve/ci/shop",
        "spiffe://u:p@example.org/serve/ci/shop",
        "spiffe://example.org/serve/ci/shop?",
        "spiffe://example.org/serve/ci/shop#",
        "spiffe://example.org/serve/ci/../ci/shop",
        "spiffe://example.org//serve/ci/shop",
        "spiffe://example.org/serve/ci/%2e%2e/shop",
        "Spiffe://example.org/serve/ci/shop",
        "spiffe://example.org./serve/ci/shop",
        "spiffe:/example.org/serve/ci/shop",
        "spiffe://example.org",
        "spiffe:///serve/ci/shop",
        "//example.org/serve/ci/shop",
    ] {
        desk.refused(bad, &names(vec![uri(bad)])).await;
        desk.refused(bad, &names(vec![uri(own), dns("api"), uri(bad)])).await;
    }
    desk.granted("what is granted", &names(vec![uri(own), dns("api.example.org")])).await;
}

/// A request with something in each of its places.
fn full(key: &KeyPair) -> Hand {
    let subject = der(0x30, &[&der(0x31, &[&der(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(0x0c, &[b"x"])])])]);
    let purpose = der(0x30, &[&[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]]);
    let asking = Hand::asking(
        key,
        &[
            (SUBJECT_ALT_NAME, der(0x30, &[&der(0x86, &[NAME.as_bytes()])])),
            (&[0x55, 0x1d, 0x0f], vec![0x03, 0x02, 0x07, 0x80]),
            (&[0x55, 0x1d, 0x25], purpose),
        ],
    );
    Hand { subject, ..asking }
}

#[tokio::test]
async fn t_130_a_request_that_lacks_or_changes_an_octet_is_refused() {
    let desk = Desk::new("migrate");
    let good = full(&desk.key).by(&desk.key);
    for at in 0..good.len() {
        if at > 0 {
            desk.refused(&format!("cut at {at}"), &text(&good[..at])).await;
        }
        let mut less = good.clone();
        less.remove(at);
        desk.refused(&format!("without {at}"), &text(&less)).await;
        for mask in [0x01, 0x80] {
            let mut other = good.clone();
            other[at] ^= mask;
            desk.refused(&format!("{at} by {mask}"), &text(&other)).await;
        }
    }
    for tail in [&[0x00][..], &[0x05, 0x00], &[0x30, 0x00], &[0xff; 100]] {
        desk.refused("with a tail", &text(&[&good, tail].concat())).await;
    }
    desk.granted("whole", &text(&good)).await;
}

/// DER as a tree: the identifier octet, and what is in it.
enum Tree {
    Leaf(u8, Vec<u8>),
    Branch(u8, Vec<Tree>),
}

/// How one element of a tree is written against the rules.
#[derive(Clone, Copy)]
enum Form {
    /// One octet of length more than it takes.
    Longer,
    /// Four octets of length.
    Widest,
    /// Until a mark of its end (X.690 section 8.1.3.6); for what has parts.
    Open,
}

impl Tree {
    fn read(mut der: &[u8]) -> Vec<Self> {
        let mut all = Vec::new();
        while let [tag, first, ..] = *der {
            let extra = usize::from(if first >= 0x80 { first & 0x7f } else { 0 });
            let length = match extra {
                0 => usize::from(first),
                _ => der[2..2 + extra].iter().fold(0, |length, octet| length << 8 | usize::from(*octet)),
            };
            let (content, rest) = der[2 + extra..].split_at(length);
            let own = content.to_vec();
            all.push(if tag & 0x20 != 0 { Self::Branch(tag, Self::read(content)) } else { Self::Leaf(tag, own) });
            der = rest;
        }
        all
    }

    /// `bent`: how many elements until the one that is written so; `None` behind it.
    fn write(&self, bent: &mut Option<usize>, form: Form) -> Vec<u8> {
        let here = *bent == Some(0);
        *bent = bent.and_then(|left| left.checked_sub(1));
        let (tag, content) = match self {
            Self::Leaf(tag, content) => (*tag, content.clone()),
            Self::Branch(tag, parts) => (*tag, parts.iter().flat_map(|part| part.write(bent, form)).collect()),
        };
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        match (here, form) {
            (false, _) => der(tag, &[&content]),
            (true, Form::Longer) if content.len() < 0x80 => [&[tag, 0x81, low], &content[..]].concat(),
            (true, Form::Longer) => [&[tag, 0x83, 0, high, low], &content[..]].concat(),
            (true, Form::Widest) => [&[tag, 0x84, 0, 0, high, low], &content[..]].concat(),
            (true, Form::Open) => [&[tag, 0x80], &content[..], &[0, 0]].concat(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Leaf(..) => 1,
            Self::Branch(_, parts) => 1 + parts.iter().map(Self::count).sum::<usize>(),
        }
    }
}

#[tokio::test]
async fn t_130_a_length_in_any_form_but_the_shortest_is_refused_though_it_is_signed() {
    let desk = Desk::new("migrate");
    let info = &Tree::read(&full(&desk.key).info())[0];
    let signed = |info: &[u8]| {
        let signature = SigningKey::sign(&desk.key, info).unwrap();
        der(0x30, &[info, ECDSA_SHA256, &der(0x03, &[&[0], &signature])])
    };
    assert!(info.count() > 20, "{}", info.count());
    for place in 0..info.count() {
        for form in [Form::Longer, Form::Widest, Form::Open] {
            let bent = info.write(&mut Some(place), form);
            desk.refused(&format!("{place}"), &text(&signed(&bent))).await;
        }
    }
    let whole = &Tree::read(&signed(&info.write(&mut None, Form::Open)))[0];
    let outside = [0, 1 + info.count(), 2 + info.count(), 3 + info.count()];
    for place in outside {
        for form in [Form::Longer, Form::Widest, Form::Open] {
            desk.refused(&format!("outside {place}"), &text(&whole.write(&mut Some(place), form))).await;
        }
    }
    desk.granted("as it should be", &text(&whole.write(&mut None, Form::Open))).await;
}

#[tokio::test]
async fn t_130_what_hides_in_a_name_or_is_said_twice_is_refused_though_it_is_signed() {
    let desk = Desk::new("serve");
    let own = "spiffe://example.org/serve/ci/shop";
    let asked = |extensions: &[(&[u8], Vec<u8>)]| text(&Hand::asking(&desk.key, extensions).by(&desk.key));
    let san = |names: &[Vec<u8>]| (SUBJECT_ALT_NAME, der(0x30, &[&names.concat()]));
    let host = |name: &[u8]| der(0x82, &[name]);
    for name in [&b"api.example.org\0"[..], b"api.example.org\0.evil.org", b"\0api.example.org", b"api\r\n.example.org"]
    {
        desk.refused("NUL", &asked(&[san(&[der(0x86, &[own.as_bytes()]), host(name)])])).await;
    }
    let usage = (&[0x55, 0x1d, 0x0f][..], vec![0x03, 0x02, 0x07, 0x80]);
    desk.refused("a usage twice", &asked(&[usage.clone(), usage.clone()])).await;
    desk.refused("names twice", &asked(&[san(&[host(b"api")]), usage, san(&[host(b"api")])])).await;
    let one = attribute(EXTENSION_REQUEST, &der(0x30, &[]));
    let twice = Hand { attributes: der(0xa0, &[&one, &one]), ..Hand::of(&desk.key) };
    desk.refused("two requests for extensions", &text(&twice.by(&desk.key))).await;
    let named = |tag: u8, value: &[u8]| {
        let pair = der(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(tag, &[value])]);
        text(&Hand { subject: der(0x30, &[&der(0x31, &[&pair])]), ..Hand::of(&desk.key) }.by(&desk.key))
    };
    for (what, tag) in [("T61String", 0x14), ("BMPString", 0x1e), ("GeneralString", 0x1b), ("VideotexString", 0x15)] {
        desk.refused(what, &named(tag, b"ab")).await;
    }
    let (status, body) = desk.ask(&named(0x0c, &[b'a'; 30_000])).await;
    assert_eq!((status, &body["reason"]), (400, &"E-CSR".into()), "{body}");
    let (status, body) = desk.ask(&"A".repeat(88_000)).await;
    assert_eq!((status, &body["reason"]), (413, &"E-TOO-LARGE".into()), "64 KiB of a name: {body}");
    desk.granted("its name, once", &asked(&[san(&[der(0x86, &[own.as_bytes()]), host(b"api")])])).await;
}

#[tokio::test]
async fn t_132_ten_thousand_sequences_in_each_other_are_refused_at_once() {
    let desk = Desk::new("migrate");
    let mut nested = vec![0x05, 0x00];
    while nested.len() < 12_000 {
        nested = der(0x30, &[&nested]);
    }
    let inside = Hand { attributes: der(0xa0, &[&nested]), ..Hand::of(&desk.key) };
    desk.refused("in the attributes", &text(&inside.by(&desk.key))).await;
    desk.refused("10,000 that do not end", &text(&[0x30, 0x80].repeat(10_000))).await;
    desk.refused("10,000 that say more than they have", &text(&[0x30, 0x82, 0xff, 0xff].repeat(10_000))).await;
    desk.refused("10,000 empty ones", &text(&[0x30, 0x00].repeat(8_000))).await;
    desk.granted("a plain one", &text(&Hand::of(&desk.key).by(&desk.key))).await;
}
