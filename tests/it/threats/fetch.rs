//! Section C: what an issuer, its network or a token can make the broker fetch; against real listeners,
//! with canaries that must see no connection.

mod health;
mod platform;
mod proxy;
mod review;
mod stage;

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use serde_json::json;

use self::{
    platform::{DISCOVERY, Platform, Reply, discovery},
    stage::{DOWN, INSIDE, OPENED, Stage, UNKNOWN_KEY, asked, headed, is, issuer, key, unknown_kid},
};
use crate::{
    served::Authority,
    threats::{forge::Forge, stand::JWT},
    world::{BUNDLE, ISSUER, World},
};

#[tokio::test]
async fn t_045_a_token_makes_nobody_fetch_what_it_names() {
    let (authority, canary, key) = (Authority::new(), Platform::canary(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    is(stage.opens(&canary.url(), &key).await, (400, "E-ISSUER"));
    for url in [format!("{}@{}", platform.url(), canary.address), format!("{}/../x", platform.url())] {
        is(stage.opens(&url, &key).await, (400, "E-ISSUER"));
    }
    let good = stage.token(&platform.url(), &key);
    for name in ["jku", "x5u"] {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": key.kid(), name: canary.url() });
        is(stage.presents(&headed(&good, &header)).await, UNKNOWN_KEY);
    }
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": canary.url() });
    is(stage.presents(&headed(&good, &header)).await, UNKNOWN_KEY);
    is(stage.presents(&good).await, OPENED);
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn t_052_a_url_in_a_request_is_never_fetched() {
    let (authority, canary, key) = (Authority::new(), Platform::canary(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    let url = canary.url();
    for (name, value) in [
        ("resource", url.clone()),
        ("audience", url.clone()),
        ("client_id", url.clone()),
        ("redirect_uri", url.clone()),
        ("request_uri", url.clone()),
        ("csr", url.clone()),
        (
            "authorization_details",
            json!([{ "type": "dayfly_task", "template": "deploy", "locations": [url] }]).to_string(),
        ),
    ] {
        let token = stage.token(&platform.url(), &key);
        let scope = if name == "authorization_details" { "" } else { "deploy" };
        let mut fields = vec![("subject_token", &*token), ("subject_token_type", JWT), (name, &*value)];
        fields.extend((!scope.is_empty()).then_some(("scope", scope)));
        stage.world.call(asked(&fields)).await;
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn t_047_a_redirected_issuer_has_no_keys_and_known_ones_stay() {
    let (authority, key) = (Authority::new(), key());
    let (platform, canary) = (Platform::start(&authority), Platform::start(&authority));
    canary.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    platform.publishes(&[&key]);
    is(stage.opens(&platform.url(), &key).await, OPENED);
    let elsewhere = canary.url();
    for (status, to) in [
        (301, format!("{elsewhere}{DISCOVERY}")),
        (302, format!("http://{}{DISCOVERY}", canary.address)),
        (303, format!("//{}{DISCOVERY}", canary.address)),
        (307, format!("{elsewhere}{DISCOVERY}")),
        (308, DISCOVERY.to_owned()),
    ] {
        let before = platform.asked().len();
        platform.answers(move |_| Reply::status(&format!("{status} Moved"), &format!("Location: {to}\r\n"), "{}"));
        stage.world.pass_s(301);
        is(stage.opens(&platform.url(), &key).await, OPENED);
        assert_eq!(platform.asked().len(), before + 1, "{status}: asked once, and not again elsewhere");
        let seen = stage.issuer("one").await;
        assert_eq!(seen["why"], format!("discovery: the answer is a redirect ({status}), which is not followed"));
    }
    // Until their hard limit.
    stage.world.pass_s(6 * 3600);
    is(stage.opens(&platform.url(), &key).await, DOWN);
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn t_048_nothing_that_the_issuer_set_is_sent_on() {
    let (authority, key) = (Authority::new(), key());
    let (platform, keys) = (Platform::start(&authority), Platform::start(&authority));
    keys.publishes(&[&key]);
    let document = json!({ "issuer": platform.url(), "jwks_uri": format!("{}/jwks", keys.url()) });
    platform.answers(move |_| {
        Reply::with("Set-Cookie: canary=1; Domain=127.0.0.1\r\nWWW-Authenticate: Basic realm=canary\r\n", &document)
    });
    let mut stage = Stage::with(&authority, &platform);
    is(stage.opens(&platform.url(), &key).await, OPENED);
    for asked in platform.asked().into_iter().chain(keys.asked()) {
        let head = asked.head.to_ascii_lowercase();
        for name in ["cookie", "authorization", "referer", "canary", "eyj"] {
            assert!(!head.contains(name), "{head}");
        }
        assert_eq!(asked.body, "");
    }
    assert_eq!(keys.asked().len(), 1);
}

#[tokio::test]
async fn t_049_an_issuer_inside_the_network_is_not_asked_unless_its_table_says_so() {
    let (authority, canary, key) = (Authority::new(), Platform::canary(), key());
    let port = canary.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "127.1",
        "169.254.169.254",
    ] {
        let url = format!("https://{host}:{port}");
        let bundle = format!("{BUNDLE}{}", issuer("one", &url, ""));
        let mut stage = Stage::of(&authority, &issuer("ok", "https://127.0.0.1:1", INSIDE));
        stage.world.bundle.set(&bundle);
        // What is no host at all is refused with the bundle, the rest when its keys are asked for.
        if stage.world.flow.load_bundle("test").await.is_ok() {
            is(stage.opens(&url, &key).await, DOWN);
        }
    }
    assert_eq!(canary.connections(), 0);
}

/// Everybody with an unknown `kid` together brings one fetch in 30 s, and takes nothing from whoever has a
/// known one.
#[tokio::test]
async fn t_053_ten_thousand_unknown_kids_are_one_fetch() {
    let (authority, known) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&known]);
    let mut stage = Stage::with(&authority, &platform);
    is(stage.opens(&platform.url(), &known).await, OPENED);
    stage.world.pass_s(30);
    let token = stage.token(&platform.url(), &known);
    for number in 0..10_000 {
        is(stage.presents(&unknown_kid(&token, number)).await, UNKNOWN_KEY);
        if number % 1_000 == 0 {
            stage.world.pass_s(1);
            is(stage.opens(&platform.url(), &known).await, OPENED);
        }
    }
    assert_eq!(platform.fetches(), 2, "one at first, and one for all of them");
}

#[tokio::test]
async fn t_053_an_empty_key_set_does_not_lift_the_bound() {
    let (authority, known) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[]);
    let mut stage = Stage::with(&authority, &platform);
    let token = stage.token(&platform.url(), &known);
    for number in 0..3_000 {
        is(stage.presents(&unknown_kid(&token, number)).await, DOWN);
        if number % 300 == 0 {
            stage.world.pass_s(2);
        }
    }
    assert_eq!(platform.fetches(), 1, "20 s have passed");
    assert_eq!(stage.issuer("one").await["why"], "key set: no key of it can be used");
}

/// A caller who leaves does not take the one fetch of a cooldown along.
#[tokio::test]
async fn t_053_who_asks_and_leaves_stops_no_fetch() {
    let (authority, key) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    let [first, second] = [(); 2].map(|()| stage.token(&platform.url(), &key));
    {
        // Polled until it waits for the network, and dropped there.
        let mut leaving = std::pin::pin!(stage.presents(&first));
        let waits = std::future::poll_fn(|context| Poll::Ready(leaving.as_mut().poll(context).is_pending())).await;
        assert!(waits, "there is something to wait for");
    }
    is(stage.presents(&second).await, OPENED);
    assert_eq!(platform.fetches(), 1);
}

#[tokio::test]
async fn t_054_an_answer_without_measure_is_given_up() {
    let (authority, key) = (Authority::new(), key());
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\n{more}\r\n").into_bytes();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).into_bytes();
    let many = |count: usize| json!({ "keys": vec![json!({ "kty": "EC" }); count] });
    let replies = [
        ("a gibibyte is announced", Reply::Silence(head("Content-Length: 1073741824\r\n"))),
        ("chunks without end", Reply::Endless(head("Transfer-Encoding: chunked\r\n"), chunk)),
        ("no end at all", Reply::Endless(head(""), vec![b' '; 0x10000])),
        ("two bytes a second", Reply::Drip(head("Content-Length: 300\r\n"))),
        ("silence", Reply::Silence(Vec::new())),
        ("headers without end", Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: x\r\n".repeat(64))),
        ("a bomb", Reply::with("Content-Encoding: gzip\r\n", &many(1))),
        ("ten thousand keys", Reply::json(&many(10_000))),
        ("a hundred and one keys", Reply::json(&many(101))),
        ("a key of a mebibyte", Reply::json(&json!({ "keys": [{ "kty": "RSA", "n": "A".repeat(1 << 20) }] }))),
    ];
    let platforms: Vec<Platform> = replies
        .iter()
        .map(|(_, reply)| {
            let (platform, reply) = (Platform::start(&authority), reply.clone());
            let document = discovery(&platform.url());
            platform
                .answers(move |asked| if asked.path() == DISCOVERY { Reply::json(&document) } else { reply.clone() });
            platform
        })
        .collect();
    let tables = platforms.iter().enumerate().map(|(n, platform)| issuer(&format!("i{n}"), &platform.url(), INSIDE));
    let mut stage = Stage::of(&authority, &tables.collect::<String>());
    let tokens: Vec<String> = platforms.iter().map(|platform| stage.token(&platform.url(), &key)).collect();
    let began = Instant::now();
    let found = stage.present_at_once(&tokens).await;
    assert!(began.elapsed() < Duration::from_secs(9), "each within five seconds, all at once");
    for (found, (what, _)) in found.into_iter().zip(&replies) {
        assert_eq!((found.0, &*found.1), DOWN, "{what}");
    }
}

#[tokio::test]
async fn t_055_an_issuer_does_not_say_for_how_long_it_is_believed() {
    for headers in ["Cache-Control: max-age=31536000\r\n", "Cache-Control: immutable, max-age=99999999999\r\n", ""] {
        let (authority, old, new) = (Authority::new(), key(), key());
        let platform = Platform::start(&authority);
        platform.publishes_with(headers, &[&old]);
        let mut stage = Stage::with(&authority, &platform);
        is(stage.opens(&platform.url(), &old).await, OPENED);
        platform.publishes_with(headers, &[&new]);
        stage.world.pass_s(300);
        is(stage.opens(&platform.url(), &old).await, UNKNOWN_KEY);
        is(stage.opens(&platform.url(), &new).await, OPENED);
    }
    // Nor does it bring a flood upon itself.
    for headers in ["Cache-Control: no-store\r\n", "Cache-Control: max-age=0, no-cache\r\n"] {
        let (authority, key) = (Authority::new(), key());
        let platform = Platform::start(&authority);
        platform.publishes_with(headers, &[&key]);
        let mut stage = Stage::with(&authority, &platform);
        for _ in 0..59 {
            is(stage.opens(&platform.url(), &key).await, OPENED);
            stage.world.pass_s(1);
        }
        assert!(platform.fetches() <= 2, "{} in 59 s", platform.fetches());
    }
}

#[tokio::test]
async fn t_055_an_issuer_that_is_away_is_believed_for_six_hours() {
    let (authority, known) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&known]);
    let mut stage = Stage::with(&authority, &platform);
    is(stage.opens(&platform.url(), &known).await, OPENED);
    let url = platform.url();
    platform.stop();
    for _ in 0..71 {
        stage.world.pass_s(300);
        is(stage.opens(&url, &known).await, OPENED);
    }
    assert_eq!(stage.issuer("one").await["state"], "stale");
    stage.world.pass_s(299);
    is(stage.opens(&url, &known).await, OPENED);
    stage.world.pass_s(1);
    is(stage.opens(&url, &known).await, DOWN);
    assert_eq!(stage.issuer("one").await["state"], "down");
}

#[tokio::test]
async fn t_056_a_key_that_was_taken_out_is_refused_at_an_operators_word() {
    let (authority, old, new) = (Authority::new(), key(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&old, &new]);
    let mut stage = Stage::with(&authority, &platform);
    is(stage.opens(&platform.url(), &old).await, OPENED);
    platform.publishes(&[&new]);
    is(stage.opens(&platform.url(), &old).await, OPENED);
    let answer = stage.refresh("one").await;
    assert_eq!((answer.status, &answer.json()["keys"], &answer.json()["state"]), (200, &json!(1), &json!("fresh")));
    is(stage.opens(&platform.url(), &old).await, UNKNOWN_KEY);
    is(stage.opens(&platform.url(), &new).await, OPENED);
    assert_eq!(platform.fetches(), 2);
    // Not at every word.
    let again = stage.refresh("one").await;
    assert_eq!((again.status, &again.json()["reason"]), (503, &json!("E-BUSY")));
    assert_eq!(platform.fetches(), 2);
}

#[tokio::test]
async fn t_057_pinned_keys_ask_nobody() {
    let (canary, mut world) = (Platform::canary(), World::new());
    world.bundle.edit("https://ci.example.org", &canary.url());
    world.flow.load_bundle("test").await.unwrap();
    let job = crate::world::Job::shop().with("iss", canary.url()).with("aud", ISSUER);
    world.open(&job, "deploy").await;
    world.flow.fetch_issuers_ahead();
    world.pass_s(7 * 3600);
    world.open(&job, "deploy").await;
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn t_058_only_a_certificate_that_holds_vouches_for_keys() {
    let (authority, stranger, key, dir) = (Authority::new(), Authority::new(), key(), tempfile::tempdir().unwrap());
    let year = |year: i32| rcgen::date_time_ymd(year, 1, 1);
    let expired = authority.write_leaf_with(dir.path(), "expired", |params| {
        (params.not_before, params.not_after) = (year(2020), year(2021));
    });
    let early = authority.write_leaf_with(dir.path(), "early", |params| {
        (params.not_before, params.not_after) = (year(2090), year(2091));
    });
    let elsewhere = authority.write_leaf_with(dir.path(), "elsewhere", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("issuer.test".try_into().unwrap())];
    });
    for ((cert, key_file), why) in [
        (expired, Some("its certificate has expired")),
        (early, Some("its certificate is not valid yet")),
        (elsewhere, Some("its certificate is for another host")),
        (stranger.write_leaf(dir.path(), "strange"), Some("its certificate is of an authority that is not trusted")),
        (self_signed(dir.path()), Some("its certificate is of an authority that is not trusted")),
        (authority.write_leaf(dir.path(), "good"), None),
    ] {
        let platform = Platform::with_certificate(&cert, &key_file);
        platform.publishes(&[&key]);
        let mut stage = Stage::with(&authority, &platform);
        let opened = stage.opens(&platform.url(), &key).await;
        is(opened, if why.is_some() { DOWN } else { OPENED });
        assert_eq!(platform.asked().is_empty(), why.is_some(), "nothing is asked of a stranger");
        let seen = stage.issuer("one").await;
        assert_eq!(seen["why"].as_str().map(str::to_owned), why.map(|why| format!("discovery: {why}")));
    }
}

fn self_signed(dir: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.join("own.cert"), dir.join("own.key"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

/// Two issuers that call their keys by one name.
#[tokio::test]
async fn t_059_keys_of_one_issuer_are_never_found_for_another() {
    let (authority, forges) = (Authority::new(), [Forge::new(), Forge::new()]);
    let platforms = [Platform::start(&authority), Platform::start(&authority)];
    for (platform, forge) in platforms.iter().zip(&forges) {
        let (document, jwks) = (discovery(&platform.url()), json!({ "keys": [forge.jwk("e")] }));
        platform.answers(move |asked| Reply::json(if asked.path() == DISCOVERY { &document } else { &jwks }));
    }
    let tables = [issuer("one", &platforms[0].url(), INSIDE), issuer("two", &platforms[1].url(), INSIDE)];
    let stage = Stage::of(&authority, &tables.concat());
    let token = |forge: usize, platform: usize, jti: &str| {
        let claims = json!({ "iss": platforms[platform].url(), "sub": "shop", "jti": jti });
        forges[forge].claims(claims)
    };
    is(stage.presents(&token(0, 0, "a")).await, OPENED);
    is(stage.presents(&token(1, 1, "b")).await, OPENED);
    for round in 0..2 {
        is(stage.presents(&token(0, 1, "c")).await, UNKNOWN_KEY);
        is(stage.presents(&token(1, 0, "d")).await, UNKNOWN_KEY);
        is(stage.presents(&token(0, 0, &format!("e-{round}"))).await, OPENED);
    }
    // Another bundle, in which the two have changed places: nothing is left of what was known.
    let swapped = [issuer("one", &platforms[1].url(), INSIDE), issuer("two", &platforms[0].url(), INSIDE)];
    stage.world.bundle.set(&format!("{BUNDLE}{}", swapped.concat()));
    stage.world.flow.load_bundle("test").await.unwrap();
    is(stage.presents(&token(0, 1, "f")).await, UNKNOWN_KEY);
    is(stage.presents(&token(1, 1, "g")).await, OPENED);
    is(stage.presents(&token(0, 0, "h")).await, OPENED);
}

#[tokio::test]
async fn t_060_a_discovery_document_of_another_issuer_is_refused() {
    let (authority, key) = (Authority::new(), key());
    let (platform, victim) = (Platform::start(&authority), Platform::start(&authority));
    victim.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    let url = platform.url();
    for said in [json!(victim.url()), json!(format!("{url}/")), json!(url.to_uppercase()), json!([url]), json!(null)] {
        let document = json!({ "issuer": said, "jwks_uri": format!("{}/jwks", victim.url()) });
        platform.answers(move |_| Reply::json(&document));
        is(stage.opens(&platform.url(), &key).await, DOWN);
        stage.world.pass_s(30);
    }
    assert_eq!(victim.connections(), 0);
    platform.publishes(&[&key]);
    is(stage.opens(&platform.url(), &key).await, OPENED);
}

#[test]
fn t_058_no_check_of_certificates_can_be_switched_off() {
    fn walk(dir: &std::path::Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains(".dangerous()") && !text.contains("accept_invalid"), "{}", path.display());
            }
        }
    }
    ["src", "crates/domain/src", "crates/verifier/src"].iter().for_each(|top| walk(std::path::Path::new(top)));
}
