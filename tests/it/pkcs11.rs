//! The area CA's key in a token: SoftHSM's, whose module the broker loads as it would that of a device. In: a
//! ceremony, a broker. Out: chains that OpenSSL accepts, and what becomes of both when the token is not as it
//! should be.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use super::{
    certs::openssl,
    dev::{self, text, wait_until},
    foreign::skipped,
    served::{Authority, Served},
};

const BUNDLE: &str = "format = 1\ntrust_domain = \"example.org\"\n";
const PIN: &str = "73518264";
const WRONG: &str = "90909090";

/// A folder for one broker, and one for its tokens.
struct Company {
    dir: tempfile::TempDir,
    address: std::net::SocketAddr,
}

impl Company {
    fn new() -> Self {
        let company = Self { dir: tempfile::tempdir().unwrap(), address: crate::served::free_address() };
        fs::create_dir(company.path("vault")).unwrap();
        company.secret("seal.key", &"5ea1".repeat(16));
        company.secret("passphrase", "correct horse battery staple\n");
        company.secret("pin", &format!("{PIN}\n"));
        let tokens = format!("directories.tokendir = {}\nobjectstore.backend = file\n", company.at("tokens"));
        fs::write(company.path("softhsm2.conf"), tokens).unwrap();
        company.token(PIN);
        company
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn secret(&self, name: &str, content: &str) {
        dayfly::sys::files::write_atomic(&self.path(name), content.as_bytes(), 0o600).unwrap();
    }

    /// An empty token where the old one is not any more.
    fn token(&self, pin: &str) {
        fs::create_dir(self.path("tokens")).unwrap();
        self.softhsm(&["--init-token", "--free", "--label", "dayfly", "--so-pin", "12345678", "--pin", pin]);
    }

    fn softhsm(&self, args: &[&str]) {
        let mut command = Command::new("softhsm2-util");
        let done = command.args(args).envs(self.env()).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}{}", text(&done.stdout), text(&done.stderr));
    }

    /// A key that somebody else made, under this id.
    fn put(&self, id: &str, algorithm: &[&str]) {
        let file = self.at("imported.pem");
        let made = openssl(&[&["genpkey", "-out", &file], algorithm].concat());
        assert!(made.0, "{}", made.1);
        let key = ["--import", &file, "--token", "dayfly", "--label", "by hand", "--id", id, "--pin", PIN];
        self.softhsm(&key);
    }

    fn env(&self) -> [(String, String); 1] {
        [("SOFTHSM2_CONF".to_owned(), self.at("softhsm2.conf"))]
    }

    /// `object`: which key, as in the URI.
    fn settings(&self, object: &str) -> String {
        let (address, seal, pin) = (self.address, self.at("seal.key"), self.at("pin"));
        format!(
            "[pki]\nurl = 'http://{address}'\nlisten = '{address}'\nseal = 'file:{seal}'\n\
             area_key = 'pkcs11:token=dayfly;{object}?module-path={}&pin-source=file:{pin}'\n",
            module().display()
        )
    }

    fn run(&self, args: &[&str]) -> Output {
        dev::dayfly(args).envs(self.env()).current_dir(self.dir.path()).output().unwrap()
    }

    /// `dayfly ca init`.
    fn init(&self) -> Output {
        let root = ["--root-key", "vault/root.key", "--passphrase-file", "passphrase", "--config", "dayfly.toml"];
        self.run(&[&["ca", "init"][..], &root].concat())
    }

    fn check(&self) -> Output {
        self.run(&["serve", "--check", "--config", "dayfly.toml"])
    }

    /// A broker after a ceremony.
    fn served(&self) -> Served {
        let (tls, [(name, value)]) = (Authority::new(), self.env());
        let env = [(name.as_str(), value.as_str())];
        let more = self.settings("object=area");
        Served::laid(&env, self.dir.path(), &tls, |_| BUNDLE.to_owned(), &more, |_| drop(good(&self.init())))
    }

    /// Settings alone, and no broker.
    fn laid(&self, object: &str) {
        let (cert, key) = Authority::new().write_leaf(self.dir.path(), "broker");
        fs::create_dir_all(self.path("bundle")).unwrap();
        fs::write(self.path("bundle/bundle.toml"), BUNDLE).unwrap();
        let (state, bundle) = (self.at("state"), self.at("bundle"));
        let settings = format!(
            "issuer = 'https://127.0.0.1:1'\nstate_dir = '{state}'\npolicies_dir = '{bundle}'\n\
             [tls]\ncert_file = '{}'\nkey_file = '{}'\n{}",
            cert.display(),
            key.display(),
            self.settings(object)
        );
        fs::write(self.path("dayfly.toml"), settings).unwrap();
    }

    fn authority(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("state/pki/authority.json")).unwrap()).unwrap()
    }
}

/// Where Debian and others have it.
fn module() -> PathBuf {
    let places =
        ["/usr/lib/softhsm", "/usr/lib64/pkcs11", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/local/lib/softhsm"];
    let found = places.iter().map(|place| Path::new(place).join("libsofthsm2.so")).find(|path| path.exists());
    found.expect("softhsm2 has a module")
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

fn refused(output: &Output, said: &str) {
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains(said), "{told}");
    assert!(!told.contains(PIN) && !told.contains(WRONG), "a PIN is never said again: {told}");
}

fn one(broker: &Served, tier: &str) -> String {
    let said = broker.verb(&["ca", "ls", "--config", "dayfly.toml", "--output", "jsonl"]);
    let cas = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = cas.filter(|ca| ca["tier"] == tier && ca["state"] == "active");
    found.next().unwrap_or_else(|| panic!("{said}"))["id"].as_str().unwrap().to_owned()
}

/// The issuing CA of now, as OpenSSL sees it: with the CRL of every level.
fn verifies(company: &Company, broker: &Served) {
    let issuing = one(broker, "issuing");
    for (what, file) in [("root", "root.pem"), ("all", "all.pem"), (issuing.as_str(), "issuing.pem")] {
        broker.verb(&["ca", "export", what, "--out", file, "--config", "dayfly.toml"]);
    }
    let fetched = ["-s", "-o", &company.at("bundle.crl"), &format!("http://{}/pki/bundle.crl", company.address)]
        .map(str::to_owned);
    let args = ["verify", "-x509_strict", "-crl_check_all", "-CRLfile", &company.at("bundle.crl")].map(str::to_owned);
    let rest = ["-CAfile", &company.at("root.pem"), "-untrusted", &company.at("all.pem"), &company.at("issuing.pem")]
        .map(str::to_owned);
    let args: Vec<&str> = args.iter().chain(&rest).map(String::as_str).collect();
    // The token signs the area CA's list beside the others, a moment later.
    wait_until("a chain with its lists", || {
        assert!(Command::new("curl").args(&fetched).status().unwrap().success());
        openssl(&args).0
    });
}

fn tools() -> bool {
    !(skipped("softhsm") || skipped("openssl") || skipped("curl"))
}

#[test]
fn the_area_ca_signs_in_a_token_and_its_key_is_in_no_file() {
    if !tools() {
        return;
    }
    let company = Company::new();
    let mut broker = company.served();
    verifies(&company, &broker);
    let first = one(&broker, "issuing");
    broker.verb(&["ca", "rotate", "--config", "dayfly.toml"]);
    assert_ne!(one(&broker, "issuing"), first);
    verifies(&company, &broker);

    let kept = company.authority();
    let names: Vec<_> = kept["areas"][0]["key"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["id", "pkcs11_id", "public"], "nothing secret");
    let area = one(&broker, "area");
    assert_eq!(kept["areas"][0]["key"]["pkcs11_id"], area.as_str(), "whoever lists the token finds the CA's id");

    // About its issuing CAs a delegate answers whom the token signed.
    broker.verb(&["ca", "export", &area, "--out", "area.pem", "--config", "dayfly.toml"]);
    let chain = [fs::read(company.path("root.pem")).unwrap(), fs::read(company.path("area.pem")).unwrap()].concat();
    fs::write(company.path("chain.pem"), chain).unwrap();
    let url = format!("http://{}/pki/ocsp", company.address);
    let (area_pem, leaf, trusted) = (company.at("area.pem"), company.at("issuing.pem"), company.at("chain.pem"));
    let asked = ["ocsp", "-issuer", &area_pem, "-cert", &leaf, "-CAfile", &trusted, "-url", &url];
    wait_until("an answer", || openssl(&asked).1.contains(": good"));

    // Another ceremony makes another key; the old area CA's list goes on.
    good(&company.init());
    broker.restart();
    let kept = company.authority();
    assert_ne!(kept["areas"][0]["key"]["pkcs11_id"], kept["areas"][1]["key"]["pkcs11_id"]);
    assert_ne!(one(&broker, "area"), area);
    let old = format!("http://{}/pki/{area}/0.crl", company.address);
    let fetched = |url: &str| Command::new("curl").args(["-sf", "-o", "/dev/null", url]).status().unwrap().success();
    wait_until("the list of the old area CA", || fetched(&old));
    broker.verb(&["ca", "rotate", "--config", "dayfly.toml"]);
    verifies(&company, &broker);
}

#[test]
fn a_token_that_is_gone_keeps_no_issuing_ca_from_going_on() {
    if !tools() {
        return;
    }
    let company = Company::new();
    let mut broker = company.served();
    let (issuing, away) = (one(&broker, "issuing"), company.path("away"));
    fs::rename(company.path("tokens"), &away).unwrap();
    fs::create_dir(company.path("tokens")).unwrap();
    let rotate = ["ca", "rotate", "--config", "dayfly.toml"];
    assert!(!company.run(&rotate).status.success());
    assert!(broker.said().contains("there is no token `dayfly`"), "{}", broker.said());
    assert_eq!(one(&broker, "issuing"), issuing, "the old one goes on");

    // A start without it is a start.
    broker.restart();
    let ready = broker.ops("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("there is no token `dayfly`"), "{ready}");
    assert_eq!(one(&broker, "issuing"), issuing);
    let list = format!("http://{}/pki/{issuing}/0.crl", company.address);
    assert!(Command::new("curl").args(["-sf", "-o", "/dev/null", &list]).status().unwrap().success());
    let checked = company.check();
    assert!(checked.status.success() && text(&checked.stderr).contains("the area CA does not sign"));
    refused(&company.init(), "there is no token `dayfly`");

    fs::remove_dir(company.path("tokens")).unwrap();
    fs::rename(&away, company.path("tokens")).unwrap();
    // It rests for a few seconds.
    wait_until("the token", || company.run(&rotate).status.success());
    assert_ne!(one(&broker, "issuing"), issuing);
    verifies(&company, &broker);
}

#[test]
fn a_pin_that_is_refused_is_tried_once_and_told() {
    if !tools() {
        return;
    }
    let company = Company::new();
    let mut broker = company.served();
    let issuing = one(&broker, "issuing");
    broker.stop();
    company.secret("pin", WRONG);
    broker.restart_after_stop();
    let ready = broker.ops("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("refused the PIN (CKR_PIN_INCORRECT)"), "{ready}");
    assert_eq!(one(&broker, "issuing"), issuing, "the old one goes on");
    // A token that would take it: whoever tried again would miss the key, and not its PIN.
    fs::rename(company.path("tokens"), company.path("away")).unwrap();
    company.token(WRONG);
    assert!(text(&company.check().stderr).contains("there is no private key"));
    assert!(!company.run(&["ca", "rotate", "--config", "dayfly.toml"]).status.success());
    let said = broker.said();
    let last = said.lines().rfind(|line| line.contains("no CA took over")).unwrap();
    assert!(last.contains("refused the PIN") && !said.contains("there is no private key"), "{said}");
    assert!(!said.contains(WRONG) && !said.contains(PIN), "{said}");
}

#[test]
fn a_pin_that_others_may_read_is_refused() {
    if !tools() {
        return;
    }
    let company = Company::new();
    company.laid("object=area");
    dayfly::sys::files::set_mode(&company.path("pin"), 0o640).unwrap();
    refused(&company.check(), "chmod 0600");
    refused(&company.init(), "chmod 0600");
    company.secret("pin", "");
    refused(&company.init(), "is not one line of text");
    company.secret("pin", WRONG);
    refused(&company.init(), "refused the PIN (CKR_PIN_INCORRECT)");
    assert!(!company.path("state/pki/authority.json").exists());
}

#[test]
fn a_key_in_the_token_carries_one_area_ca() {
    if !tools() {
        return;
    }
    let company = Company::new();
    let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    company.put("0a", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    company.put("0b", &["-algorithm", "RSA"]);
    company.put("0c", &p256);
    for (id, said) in [("%0a", "it is not on P-256"), ("%0b", "it is not on P-256"), ("%0d", "there is no private key")]
    {
        company.laid(&format!("id={id}"));
        refused(&company.init(), said);
    }
    company.laid("id=%0c");
    assert!(good(&company.init()).contains("in the token `dayfly`, id 0c"));
    refused(&company.init(), "is that of an area CA already");
    assert_eq!(company.authority()["areas"].as_array().unwrap().len(), 1);

    // `another_key_in_the_token_than_the_certificates_signs_nothing`
    company.put("0e", &p256);
    let mut kept = company.authority();
    kept["areas"][0]["key"]["pkcs11_id"] = "0e".into();
    company.secret("state/pki/authority.json", &kept.to_string());
    let checked = company.check();
    assert!(text(&checked.stderr).contains("is not that of the certificate"), "{}", text(&checked.stderr));
    let mut kept = company.authority();
    kept["areas"][0]["key"]["public"] = "BAAA".into();
    company.secret("state/pki/authority.json", &kept.to_string());
    refused(&company.check(), "is not what the ceremony");
}

#[test]
fn a_company_signs_for_a_key_in_a_token() {
    if !tools() {
        return;
    }
    let company = Company::new();
    company.laid("object=area");
    good(&company.run(&["ca", "init", "--csr", "area.csr", "--config", "dayfly.toml"]));
    let at = |name: &str| company.at(name);
    fs::write(
        company.path("ca.cnf"),
        "[req]\ndistinguished_name = dn\nprompt = no\nx509_extensions = own\n[dn]\nCN = a company\n\
         [own]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n\
         subjectKeyIdentifier = hash\n\
         [area]\nbasicConstraints = critical, CA:TRUE, pathlen:1\nkeyUsage = critical, keyCertSign, cRLSign\n\
         subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n",
    )
    .unwrap();
    let (cnf, key, root, csr, area) = (at("ca.cnf"), at("ca.key"), at("ca.pem"), at("area.csr"), at("area.pem"));
    let curve = "ec_paramgen_curve:P-256";
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "9", "-config", &cnf];
    let made = openssl(&[&new[..], &["-keyout", &key, "-out", &root]].concat());
    assert!(made.0, "{}", made.1);
    let sign = ["x509", "-req", "-in", &csr, "-CA", &root, "-CAkey", &key, "-days", "5", "-extfile", &cnf];
    let made = openssl(&[&sign[..], &["-extensions", "area", "-out", &area]].concat());
    assert!(made.0, "{}", made.1);
    let chain = [fs::read(&area).unwrap(), fs::read(&root).unwrap()].concat();
    fs::write(company.path("chain.pem"), chain).unwrap();
    good(&company.run(&["ca", "import", "chain.pem", "--config", "dayfly.toml"]));
    let checked = company.check();
    assert!(checked.status.success() && !text(&checked.stderr).contains("does not sign"), "{}", text(&checked.stderr));
    // Somebody else's certificate is not taken in for it.
    good(&company.run(&["ca", "init", "--csr", "again.csr", "--config", "dayfly.toml"]));
    refused(&company.run(&["ca", "import", "chain.pem", "--config", "dayfly.toml"]), "its key is not the one");
}
