//! A proxy is only what the operator named, and learns nothing but a host and a port.

use super::*;

fn place(host: &str) -> Place {
    Place::parse(&format!("https://{host}/")).unwrap_or_else(|error| panic!("{host}: {error}"))
}

#[test]
fn a_proxy_is_read_in_the_usual_spellings() {
    for text in ["http://proxy.test:3128", "proxy.test:3128", "HTTP://proxy.test:3128/"] {
        let proxy = Proxy::parse(text, "").unwrap();
        assert_eq!((&*proxy.host, proxy.port, proxy.authorization.is_none()), ("proxy.test", 3128, true), "{text}");
    }
    assert_eq!(Proxy::parse("http://proxy.test", "").unwrap().port, 80);
    assert_eq!(Proxy::parse("http://[::1]:3128", "").unwrap().host, "::1");
}

#[test]
fn a_proxy_that_cannot_be_used_is_refused_and_its_password_is_not_quoted() {
    for text in [
        "https://u:canary@proxy.test",
        "socks5://u:canary@proxy.test",
        "http://u:canary@proxy.test:0",
        "http://u:canary@proxy.test:port",
        "http://u:canary@proxy.test/path",
        "http://u:canary@",
        "http://u:%zzcanary@proxy.test",
        "http://u:%0acanary@proxy.test",
    ] {
        let why = Proxy::parse(text, "").expect_err(text);
        let error = ProxyError { variable: "HTTPS_PROXY", why };
        assert!(!format!("{error} {error:?}").contains("canary"), "{text}");
    }
}

#[test]
fn a_proxys_password_is_sent_and_never_shown() {
    let proxy = Proxy::parse("http://us%3Aer:p%40ss@proxy.test:3128", "").unwrap();
    let head = proxy.head(&place("issuer.test"));
    assert!(head.expose().contains(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode("us:er:p@ss"))));
    assert!(!format!("{proxy:?} {head:?}").contains(&STANDARD.encode("us:er:p@ss")));
}

#[test]
fn what_goes_around_the_proxy() {
    let list = " corp.example, .lan.example,10.0.0.0/8,192.0.2.7,[2001:db8::1], other.example:8443,, ";
    let proxy = Proxy::parse("proxy.test:3128", list).unwrap();
    for host in [
        "corp.example",
        "A.Corp.example",
        "x.lan.example",
        "10.9.8.7",
        "192.0.2.7",
        "[2001:db8::1]",
        "other.example:8443",
    ] {
        assert!(!proxy.leads_to(&place(host)), "{host}");
    }
    for host in ["mycorp.example", "corp.example.evil.test", "11.0.0.1", "192.0.2.8", "other.example", "[2001:db8::2]"]
    {
        assert!(proxy.leads_to(&place(host)), "{host}");
    }
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        assert!(!proxy.leads_to(&place(host)), "{host}: this machine itself");
    }
    assert!(!Proxy::parse("proxy.test", "*").unwrap().leads_to(&place("1.1.1.1")));
}
