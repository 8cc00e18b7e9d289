//! The nginx of docs/how-to/certificates-nginx.md: it goes by certificates and lists alone, and knows nothing of
//! the broker. In: a service's certificate. Out: in, or not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    cert_files::Stage,
    dev::{good, text, wait_until},
    foreign::skipped,
};

/// As on the page, on a socket instead of a port.
const CONFIG: &str = r#"
daemon off; master_process on; pid pid; error_log stderr; events {}
http {
    access_log off;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    map $ssl_client_s_dn $may_enter {
        default          0;
        "CN=orders-mtls" 1;
    }
    server {
        listen unix:door ssl;
        ssl_certificate        own.crt;
        ssl_certificate_key    own.key;
        ssl_client_certificate tls.ca;
        ssl_verify_client      on;
        ssl_verify_depth       3;
        ssl_crl                bundle.crl;
        ssl_session_tickets    off;
        ssl_session_cache      off;
        location / {
            if ($may_enter = 0) { return 403; }
            return 200 "lease $ssl_client_serial\n";
        }
    }
}
"#;

struct Nginx(Child, PathBuf);

impl Nginx {
    fn start(work: &Path) -> Self {
        let absolute = CONFIG.replace("unix:door", &format!("unix:{}/door", work.display()));
        fs::write(work.join("nginx.conf"), absolute).unwrap();
        let mut command = Self::command(work);
        let child = command.stdin(Stdio::null()).stderr(fs::File::create(work.join("nginx.log")).unwrap());
        let started = Self(child.spawn().unwrap(), work.to_owned());
        wait_until("nginx", || work.join("pid").exists() && work.join("door").exists());
        started
    }

    fn command(work: &Path) -> Command {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(work).arg("-c").arg(work.join("nginx.conf")).current_dir(work);
        command
    }

    fn reload(work: &Path) {
        assert!(Self::command(work).args(["-s", "reload"]).output().unwrap().status.success());
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers too.
        let _ = Self::command(&self.1).args(["-s", "stop"]).output();
        let _ = self.0.wait();
    }
}

/// Status and body, as curl has them.
fn called(work: &Path, more: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--max-time", "10", "--unix-socket", "door", "--cacert", "own.crt", "-w", "%{http_code}"]);
    let output = curl.args(more).arg("https://localhost/").current_dir(work).output().unwrap();
    text(&output.stdout).to_owned()
}

#[test]
fn nginx_lets_in_a_live_certificate_and_not_after_a_reload_with_the_list_of_its_end() {
    if skipped("nginx") || skipped("curl") {
        return;
    }
    let stage = Stage::new();
    let work = stage.work();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(work.join("own.crt"), own.cert.pem()).unwrap();
    fs::write(work.join("own.key"), own.signing_key.serialize_pem()).unwrap();
    stage.issued(&["--out", "tls", "--layout", "split"]);
    let fetch = || fs::write(work.join("bundle.crl"), stage.public("/pki/bundle.crl")).unwrap();
    fetch();
    let _nginx = Nginx::start(work);
    let shown = ["--cert", "tls.crt", "--key", "tls.key"];
    let answer = called(work, &shown);
    assert!(answer.starts_with("lease 01") && answer.ends_with("200"), "{answer}");
    assert!(called(work, &[]).ends_with("400"), "nobody");

    good(work, &["task", "end", "--task-file", "tls.task"]);
    wait_until("the refusal", || {
        fetch();
        Nginx::reload(work);
        called(work, &shown).ends_with("400")
    });
}
