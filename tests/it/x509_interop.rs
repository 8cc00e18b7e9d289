//! Certificates of ours before the libraries that will meet them: each builds the chain of a live one and
//! accepts it, and each refuses the same broken ones. In: what `dayfly cert` wrote. Out: yes or no.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{
    cert_files::{Stage, openssl},
    dev::{good, text, wait_until},
    foreign::{python, skipped, source},
};

/// What is asked of a library.
struct Case<'a> {
    roots: &'a str,
    chain: &'a str,
    at_s: u64,
    crls: Option<&'a str>,
}

/// A library that checks chains in a folder; what it says comes with its answer.
trait Checks {
    fn accepts(&self, work: &Path, case: &Case<'_>) -> (bool, String);

    /// The last second in which a certificate is good counts for all (RFC 5280 section 4.1.2.5) but one.
    fn last_s(&self, not_after_s: u64) -> u64 {
        not_after_s
    }

    /// Whether it can be asked about another time than now.
    fn knows_times(&self) -> bool {
        true
    }
}

struct OpenSsl;
struct GnuTls;
struct Python;
struct Java;
/// Built once.
struct Go(tempfile::TempDir);

impl Checks for OpenSsl {
    fn accepts(&self, work: &Path, case: &Case<'_>) -> (bool, String) {
        let at = case.at_s.to_string();
        let mut args = vec!["verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslclient", "-attime", &at];
        args.extend(["-CAfile", case.roots, "-untrusted", case.chain]);
        args.extend(case.crls.iter().flat_map(|crls| ["-crl_check_all", "-CRLfile", crls]));
        args.push(case.chain);
        openssl(&args, work)
    }

    fn last_s(&self, not_after_s: u64) -> u64 {
        not_after_s - 1
    }
}

impl Checks for GnuTls {
    fn accepts(&self, work: &Path, case: &Case<'_>) -> (bool, String) {
        let mut command = Command::new("certtool");
        command.args(["--verify", "--verify-profile", "medium", "--verify-purpose", "1.3.6.1.5.5.7.3.2"]);
        command.args(["--load-ca-certificate", case.roots, "--infile", case.chain]);
        command.args(case.crls.iter().flat_map(|crls| ["--load-crl", crls]));
        ran(command.current_dir(work))
    }

    fn knows_times(&self) -> bool {
        false
    }
}

impl Checks for Python {
    fn accepts(&self, work: &Path, case: &Case<'_>) -> (bool, String) {
        script(python("verify_x509.py").current_dir(work), case)
    }
}

impl Checks for Java {
    fn accepts(&self, work: &Path, case: &Case<'_>) -> (bool, String) {
        script(Command::new("java").arg(source("x509/verify.java")).current_dir(work), case)
    }
}

impl Checks for Go {
    fn accepts(&self, work: &Path, case: &Case<'_>) -> (bool, String) {
        script(Command::new(self.0.path().join("verify")).current_dir(work), case)
    }
}

impl Go {
    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(folder.path().join("verify")).arg(source("x509/verify.go"));
        let (built, said) = ran(build.env("GO111MODULE", "off").current_dir(folder.path()));
        assert!(built, "{said}");
        Self(folder)
    }
}

/// One of ours: 0 accepted, 1 refused, anything else is no answer.
fn script(command: &mut Command, case: &Case<'_>) -> (bool, String) {
    let command = command.args([case.roots, case.chain, &case.at_s.to_string()]).args(case.crls);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stdout).to_owned() + text(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    (output.status.success(), said)
}

fn ran(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.success(), text(&output.stdout).to_owned() + text(&output.stderr))
}

pub fn pem(ders: &[&[u8]]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let wrapped = |der: &[u8]| {
        let body = STANDARD.encode(der);
        body.as_bytes().chunks(64).map(|line| text(line).to_owned() + "\n").collect::<String>()
    };
    let block = |der: &&[u8]| format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", wrapped(der));
    ders.iter().map(block).collect()
}

pub fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn common_name(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

/// A root of the same name and another key.
fn other_root(work: &Path) {
    let root = certificates(&work.join("tls.ca")).remove(0);
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    let mut params = named(&common_name(&root));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    fs::write(work.join("other.ca"), pem(&[made.der()])).unwrap();
}

/// A leaf that our leaf signed: the service's key is all that it takes.
fn signed_by_leaf(work: &Path) {
    let chain = certificates(&work.join("tls.crt"));
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let key_id = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let mut issuer = named(&common_name(&leaf));
    issuer.key_identifier_method = KeyIdMethod::PreSpecified(key_id.unwrap());
    let key = KeyPair::try_from(&PrivateKeyDer::from_pem_file(work.join("tls.key")).unwrap()).unwrap();
    let mut params = named("admin");
    params.not_before = time::OffsetDateTime::from_unix_timestamp(leaf.validity().not_before.timestamp()).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(leaf.validity().not_after.timestamp()).unwrap();
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/admin/github/1".try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let made = params.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(issuer, key)).unwrap();
    let mut ders: Vec<&[u8]> = vec![made.der()];
    ders.extend(chain.iter().map(|der| &**der));
    fs::write(work.join("evil.crt"), pem(&ders)).unwrap();
}

/// The same, and one bit of its signature is another.
fn broken(work: &Path) {
    let chain = certificates(&work.join("tls.crt"));
    let mut leaf = chain[0].to_vec();
    *leaf.last_mut().unwrap() ^= 1;
    fs::write(work.join("broken.crt"), pem(&[&leaf, &chain[1], &chain[2]])).unwrap();
}

/// The chain without the CA that signed the leaf.
fn gap(work: &Path) {
    let chain = certificates(&work.join("tls.crt"));
    fs::write(work.join("gap.crt"), pem(&[&chain[0], &chain[2]])).unwrap();
}

/// A CA of ours to sign what the broker does not.
fn own_ca(name: &str, over: bool) -> CertificateParams {
    let mut params = lived(named(name), over);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Good for an hour around now, or over since one.
fn lived(mut params: CertificateParams, over: bool) -> CertificateParams {
    let now = time::OffsetDateTime::now_utc();
    let hours = |hours| now + time::Duration::hours(hours);
    (params.not_before, params.not_after) = if over { (hours(-2), hours(-1)) } else { (hours(-1), hours(1)) };
    params
}

/// Chains below one root of their own, alike but for one thing: `NAME.crt` and `own.ca`.
fn alike(work: &Path) {
    let client = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let root = CertifiedIssuer::self_signed(own_ca("own root", false), KeyPair::generate().unwrap()).unwrap();
    fs::write(work.join("own.ca"), root.pem()).unwrap();
    for (name, uses, leaf_over, ca_over) in [
        ("own", client.clone(), false, false),
        ("own-server", vec![ExtendedKeyUsagePurpose::ServerAuth], false, false),
        ("own-code", vec![ExtendedKeyUsagePurpose::CodeSigning], false, false),
        ("own-over", client.clone(), true, false),
        ("own-ca-over", client.clone(), false, true),
    ] {
        let middle = own_ca("own issuing", ca_over);
        let middle = CertifiedIssuer::signed_by(middle, KeyPair::generate().unwrap(), &root).unwrap();
        let mut leaf = lived(named("orders-mtls"), leaf_over);
        leaf.subject_alt_names = vec![SanType::URI("spiffe://example.org/orders-mtls/github/1".try_into().unwrap())];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = uses;
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &middle).unwrap();
        fs::write(work.join(format!("{name}.crt")), pem(&[leaf.der(), middle.der()])).unwrap();
    }
}

/// Holds a library to one live certificate and its broken relatives.
fn hold(library: &dyn Checks) {
    let stage = Stage::new();
    let work = stage.work();
    stage.issued(&["--out", "tls", "--layout", "split"]);
    other_root(work);
    signed_by_leaf(work);
    broken(work);
    gap(work);
    alike(work);
    let leaf = certificates(&work.join("tls.crt")).remove(0);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let last_s = u64::try_from(leaf.validity().not_after.timestamp()).unwrap();
    let clock_s = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now_s = clock_s();
    let good_case = || Case { roots: "tls.ca", chain: "tls.crt", at_s: now_s, crls: None };
    let accepted = |case: Case<'_>| {
        let (yes, said) = library.accepts(work, &case);
        assert!(yes, "{said}");
    };
    let refused = |what: &str, case: Case<'_>| {
        let (yes, said) = library.accepts(work, &case);
        assert!(!yes, "{what} was accepted: {said}");
    };
    accepted(good_case());
    refused("another root", Case { roots: "other.ca", ..good_case() });
    refused("what a leaf signed", Case { chain: "evil.crt", ..good_case() });
    refused("a broken signature", Case { chain: "broken.crt", ..good_case() });
    refused("a chain with a gap", Case { chain: "gap.crt", ..good_case() });
    accepted(Case { roots: "own.ca", chain: "own.crt", ..good_case() });
    for (what, chain) in [
        ("one for servers", "own-server.crt"),
        ("one for signing code", "own-code.crt"),
        ("one that is over", "own-over.crt"),
        ("one of a CA that is over", "own-ca-over.crt"),
    ] {
        refused(what, Case { roots: "own.ca", chain, ..good_case() });
    }
    if library.knows_times() {
        accepted(Case { at_s: library.last_s(last_s), ..good_case() });
        refused("an expired one", Case { at_s: last_s + 1, ..good_case() });
        refused("one of the future", Case { at_s: now_s - 3_600, ..good_case() });
    }

    let fetch = || fs::write(work.join("crl"), stage.public("/pki/bundle.crl")).unwrap();
    fetch();
    accepted(Case { crls: Some("crl"), at_s: clock_s(), ..good_case() });
    good(work, &["task", "end", "--task-file", "tls.task"]);
    let name = leaf.subject_alternative_name().unwrap().unwrap().value.general_names[0].clone();
    assert!(matches!(name, GeneralName::URI(uri) if uri.starts_with("spiffe://example.org/orders-mtls/")));
    wait_until("the list", || {
        fetch();
        OpenSsl
            .accepts(work, &Case { crls: Some("crl"), at_s: clock_s(), ..good_case() })
            .1
            .contains("certificate revoked")
    });
    // Java asks whether it was revoked before the moment that it is asked about.
    refused("a revoked one", Case { crls: Some("crl"), at_s: clock_s() + 2, ..good_case() });
    accepted(good_case());
}

#[test]
fn openssl_accepts_a_live_certificate_and_refuses_every_broken_one() {
    if !skipped("openssl") && !skipped("curl") {
        hold(&OpenSsl);
    }
}

#[test]
fn gnutls_accepts_a_live_certificate_and_refuses_every_broken_one() {
    if !skipped("certtool") && !skipped("openssl") && !skipped("curl") {
        hold(&GnuTls);
    }
}

#[test]
fn python_cryptography_accepts_a_live_certificate_and_refuses_every_broken_one() {
    if !skipped("python") && !skipped("openssl") && !skipped("curl") {
        hold(&Python);
    }
}

#[test]
fn go_accepts_a_live_certificate_and_refuses_every_broken_one() {
    if !skipped("go") && !skipped("openssl") && !skipped("curl") {
        hold(&Go::build());
    }
}

#[test]
fn java_accepts_a_live_certificate_and_refuses_every_broken_one() {
    if !skipped("java") && !skipped("openssl") && !skipped("curl") {
        hold(&Java);
    }
}
