//! The PostgreSQL of docs/how-to/certificates-postgresql.md: a login by certificate, under a role that the
//! certificate names or that a map gives, and no login once the lists say that its task is over. In: what
//! `dayfly cert` wrote. Out: in, or not.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use dayfly_domain::LeaseId;
use rustix::process::{Signal, geteuid};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    cert_files::Stage,
    dev::{good, signal, text, wait_until},
    foreign::skipped,
    served::free_address,
};

/// As on the page.
const SETTINGS: &str = "
ssl           = on
ssl_cert_file = 'server.crt'
ssl_key_file  = 'server.key'
ssl_ca_file   = 'dayfly-root.pem'
ssl_crl_file  = 'dayfly-bundle.crl'
";
const RULES: &str = r#"
local   all postgres                    trust
hostssl all "orders-mtls" 0.0.0.0/0     cert
hostssl all reader        0.0.0.0/0     cert map=dayfly
"#;
const MAP: &str = r#"dayfly "orders-mtls" reader"#;
const ROLES: &str = r#"
create role "orders-mtls" login;
create role reader login;
create role admin login superuser;
create table orders (id int);
grant select on orders to "orders-mtls", reader;
"#;

/// A database server with a data folder of its own, under a user that is not root.
struct Postgres {
    child: Child,
    home: TempDir,
    programs: PathBuf,
    address: SocketAddr,
}

/// Who may be the server: it refuses to be root's.
#[derive(Clone, Copy)]
struct Owner(Option<(u32, u32)>);

impl Owner {
    /// The user that the package made, where the tests run as root; else whoever runs them.
    fn find() -> Self {
        let id = |what: &str| {
            let said = Command::new("id").args([what, "postgres"]).output().unwrap();
            text(&said.stdout).trim().parse().unwrap()
        };
        Self(geteuid().is_root().then(|| (id("-u"), id("-g"))))
    }

    fn command(self, program: &Path) -> Command {
        let Some((user, group)) = self.0 else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"]).arg(program);
        command
    }

    fn owns(self, path: &Path) {
        if let Some((user, group)) = self.0 {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

/// The newest one that Debian installed, or the one of the path.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let folders = versions.map(|version| version.unwrap().path().join("bin"));
    folders.filter(|folder| folder.join("postgres").exists()).max().unwrap_or_default()
}

fn ran(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

impl Postgres {
    /// With the root in `work`; the caller puts the first list beside it.
    fn start(work: &Path, list: &[u8]) -> Self {
        let (home, owner, programs) = (tempfile::tempdir().unwrap(), Owner::find(), programs());
        owner.owns(home.path());
        let data = home.path().join("data");
        let mut init = owner.command(&programs.join("initdb"));
        init.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"]);
        ran(init.arg(&data).current_dir(home.path()));
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(work.join("own.crt"), own.cert.pem()).unwrap();
        let address = free_address();
        let sockets = format!("unix_socket_directories = '{}'\nport = {}\n", home.path().display(), address.port());
        let settings = format!("{SETTINGS}listen_addresses = '127.0.0.1'\nfsync = off\n{sockets}");
        let files = [
            ("postgresql.auto.conf", settings.as_bytes()),
            ("pg_hba.conf", RULES.as_bytes()),
            ("pg_ident.conf", MAP.as_bytes()),
            ("server.crt", own.cert.pem().as_bytes()),
            ("server.key", own.signing_key.serialize_pem().as_bytes()),
            ("dayfly-root.pem", &fs::read(work.join("tls.ca")).unwrap()),
            ("dayfly-bundle.crl", list),
        ]
        .map(|(name, bytes)| (data.join(name), bytes.to_vec()));
        for (path, bytes) in &files {
            fs::write(path, bytes).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            owner.owns(path);
        }
        let log = fs::File::create(home.path().join("log")).unwrap();
        let mut server = owner.command(&programs.join("postgres"));
        server.arg("-D").arg(&data).current_dir(home.path()).stdin(Stdio::null()).stderr(log);
        let started = Self { child: server.spawn().unwrap(), home, programs, address };
        wait_until("postgres", || started.admin("select 1").status.success());
        ran(&mut started.as_admin(ROLES));
        started
    }

    fn as_admin(&self, sql: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-U", "postgres", "-d", "postgres", "-h"]).arg(self.home.path());
        psql.args(["-p", &self.address.port().to_string(), "-v", "ON_ERROR_STOP=1", "-c", sql]);
        psql
    }

    fn admin(&self, sql: &str) -> Output {
        self.as_admin(sql).stdin(Stdio::null()).output().unwrap()
    }

    /// As the page's timer does it.
    fn reload(&self, list: &[u8]) {
        let (path, data) = (self.home.path().join("data/new.crl"), self.home.path().join("data"));
        fs::write(&path, list).unwrap();
        Owner::find().owns(&path);
        fs::rename(path, data.join("dayfly-bundle.crl")).unwrap();
        let asked = self.admin("select pg_reload_conf()");
        assert_eq!(text(&asked.stdout).trim(), "t", "{}", text(&asked.stderr));
    }

    /// `psql` as on the page; `files`: what `dayfly cert` wrote, or nothing.
    fn psql(&self, work: &Path, role: &str, files: Option<&str>) -> Command {
        let port = self.address.port();
        let mut asked = format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres user={role} ");
        asked += "sslmode=verify-full sslrootcert=own.crt ";
        asked += &files.map(|name| format!("sslcert={name}.crt sslkey={name}.key")).unwrap_or_default();
        let mut psql = Command::new(self.programs.join("psql"));
        // Nothing of whoever runs the tests.
        psql.env_clear().env("HOME", work).current_dir(work).args(["-X", "-A", "-t", "-d", &asked]);
        psql
    }

    /// Whether it gets in, and what is said.
    fn login(&self, work: &Path, role: &str, files: Option<&str>) -> (bool, String) {
        let who = "select client_dn, client_serial, current_user, (select count(*) from orders) \
                   from pg_stat_ssl where pid = pg_backend_pid()";
        let output = self.psql(work, role, files).args(["-c", who]).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), text(&output.stdout).trim().to_owned() + text(&output.stderr))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Fast: its sessions are ended too.
        signal(&self.child, Signal::INT);
        let _ = self.child.wait();
    }
}

/// A session that stays open.
struct Session(Child, ChildStdin, BufReader<ChildStdout>);

impl Session {
    fn open(postgres: &Postgres, work: &Path) -> Self {
        let mut psql = postgres.psql(work, "orders-mtls", Some("tls"));
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self(child, stdin, stdout)
    }

    /// The answer; empty when it is over.
    fn ask(&mut self) -> String {
        let mut line = String::new();
        // A session that is over takes no question.
        let _ = writeln!(self.1, "select 'here';");
        self.2.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn issued(stage: &Stage, name: &str) -> LeaseId {
    let told = stage.issued(&["--out", name, "--layout", "split", "--output", "json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    told["lease_id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn postgresql_takes_a_login_by_certificate_and_not_after_a_reload_with_the_list_of_its_end() {
    if skipped("postgres") || skipped("curl") {
        return;
    }
    let stage = Stage::new();
    let work = stage.work();
    let serial = issued(&stage, "tls").as_u128().to_string();
    let postgres = Postgres::start(work, &stage.public("/pki/bundle.crl"));
    let answers = |role: &str, serial: &str| (true, format!("/CN=orders-mtls|{serial}|{role}|0"));
    assert_eq!(postgres.login(work, "orders-mtls", Some("tls")), answers("orders-mtls", &serial));
    assert_eq!(postgres.login(work, "reader", Some("tls")), answers("reader", &serial), "by the map");
    let refused = |role: &str, files: Option<&str>, why: &str| {
        let (entered, said) = postgres.login(work, role, files);
        assert!(!entered && said.contains(why), "{role}: {said}");
    };
    refused("orders-mtls", None, "requires a valid client certificate");
    refused("admin", Some("tls"), "no pg_hba.conf entry");
    let other = rcgen::generate_simple_self_signed(["orders-mtls".to_owned()]).unwrap();
    fs::write(work.join("other.crt"), other.cert.pem()).unwrap();
    fs::write(work.join("other.key"), other.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(work.join("other.key"), fs::Permissions::from_mode(0o600)).unwrap();
    refused("orders-mtls", Some("other"), "unknown ca");

    let mut session = Session::open(&postgres, work);
    assert_eq!(session.ask(), "here");
    good(work, &["task", "end", "--task-file", "tls.task"]);
    wait_until("the refusal", || {
        postgres.reload(&stage.public("/pki/bundle.crl"));
        let (entered, said) = postgres.login(work, "orders-mtls", Some("tls"));
        assert!(entered || said.contains("certificate revoked"), "{said}");
        !entered
    });
    refused("reader", Some("tls"), "certificate revoked");
    let next = issued(&stage, "next").as_u128().to_string();
    assert_eq!(postgres.login(work, "orders-mtls", Some("next")), answers("orders-mtls", &next), "the next task's");

    assert_eq!(session.ask(), "here", "as the page says: a session that is open stays open");
    let ended = format!("select pg_terminate_backend(pid) from pg_stat_ssl where client_serial = {serial}");
    assert_eq!(text(&postgres.admin(&ended).stdout).trim(), "t");
    wait_until("the end of the session", || session.ask().is_empty());
}
