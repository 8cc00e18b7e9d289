//! Section B: what claims must be before anybody reads them.

use serde_json::{Value, json};

use super::stand::{AUDIENCE, CLAIM, EXPIRED, ISSUER_UNKNOWN, MULTI, SIGNATURE, Said, Stand, bundle, refusal};
use crate::world::{ISSUER, Job, START};

const STRANGER: Said = (400, "invalid_request", "E-STRANGER");

/// The same claim with each of these values as raw JSON.
fn raw(stand: &Stand, name: &str, values: &[&str]) -> Vec<(String, String)> {
    values
        .iter()
        .map(|raw| (format!("{name} = {}", &raw[..raw.len().min(60)]), stand.forge.raw_claim(name, raw)))
        .collect()
}

fn changed(stand: &Stand, changes: &[Value]) -> Vec<(String, String)> {
    changes
        .iter()
        .map(|changes| (changes.to_string().chars().take(80).collect(), stand.forge.claims(changes.clone())))
        .collect()
}

#[tokio::test]
async fn t_029_wrong_typed_times_are_refused() {
    let stand = Stand::new();
    for name in ["exp", "nbf", "iat"] {
        let values = [r#""99999999999""#, r#""never""#, "true", "false", "[1]", "{}", "null", "-1", r#""""#];
        stand.all_refused(CLAIM, raw(&stand, name, &values)).await;
    }
}

#[tokio::test]
async fn t_030_missing_or_wrong_typed_claims_are_refused() {
    let stand = Stand::new();
    for (name, said) in [("iss", ISSUER_UNKNOWN), ("aud", AUDIENCE), ("sub", CLAIM)] {
        stand.all_refused(said, raw(&stand, name, &["7", "{}", "null", "true", "[]", "[null]", "1.5"])).await;
        stand.all_refused(said, changed(&stand, &[json!({ name: null })])).await;
    }
}

#[tokio::test]
async fn t_031_a_token_that_does_not_age_is_refused() {
    let stand = Stand::new();
    stand.all_refused(CLAIM, changed(&stand, &[json!({ "exp": null }), json!({ "iat": null })])).await;
    let at = START.as_s();
    let old = [601, 3600, 86_400, at].map(|ago| json!({ "iat": at - ago }));
    stand.all_refused(EXPIRED, changed(&stand, &old)).await;
    stand.opens(&stand.forge.claims(json!({ "iat": at - 600 }))).await;
}

#[tokio::test]
async fn t_032_only_the_exact_audience_is_accepted() {
    let stand = Stand::new();
    let texts = [
        "https://broker.example.or",
        "https://broker.example.org/",
        "https://broker.example.org/v1",
        "https://BROKER.example.org",
        "HTTPS://broker.example.org",
        "https://broker.example.org:443",
        "broker.example.org",
        "https://broker.example.org ",
        " https://broker.example.org",
        "https://broker.example.org,https://broker.example.org",
        "*",
        "",
    ];
    stand.all_refused(AUDIENCE, changed(&stand, &texts.map(|aud| json!({ "aud": aud })))).await;
    stand.opens(&stand.forge.claims(json!({ "aud": [ISSUER] }))).await;
}

#[tokio::test]
async fn t_033_an_audience_of_another_shape_is_refused() {
    let stand = Stand::new();
    let many = |count: usize| json!({ "aud": vec![ISSUER; count] });
    let shapes = [
        json!({ "aud": [ISSUER, "b"] }),
        json!({ "aud": ["b", ISSUER] }),
        json!({ "aud": [[ISSUER]] }),
        json!({ "aud": [ISSUER, 1] }),
        json!({ "aud": [1, 2, 3] }),
        json!({ "aud": { ISSUER: 1 } }),
        many(2),
        many(200),
    ];
    stand.all_refused(AUDIENCE, changed(&stand, &shapes)).await;
    // 10 000 entries are more than evidence may have of bytes, however short they are.
    let long = [json!({ "aud": vec![""; 10_000] }), json!({ "aud": vec![1; 10_000] })];
    stand.all_refused(SIGNATURE, changed(&stand, &long)).await;
    let numbers: Vec<u32> = (0..10_000).collect();
    let over = stand.present(&stand.forge.claims(json!({ "aud": numbers }))).await;
    refusal(&over, (413, "invalid_request", "E-TOO-LARGE"), "a body over 64 KiB");
}

#[tokio::test]
async fn t_034_an_issuer_is_equal_byte_for_byte() {
    let stand = Stand::new();
    let values = [
        json!("https://multi.example.or"),
        json!("https://multi.example.org2"),
        json!("https://MULTI.example.org"),
        json!([MULTI]),
        json!({}),
        json!({ "iss": MULTI }),
        json!(""),
        json!("multi"),
    ];
    stand.all_refused(ISSUER_UNKNOWN, changed(&stand, &values.map(|iss| json!({ "iss": iss })))).await;
}

#[tokio::test]
async fn t_035_other_spellings_of_an_issuer_are_refused() {
    let stand = Stand::new();
    let spellings = [
        "https://multi.example.org/",
        "HTTPS://multi.example.org",
        "https://multi.example.org:443",
        "https://a@multi.example.org",
        "https://multi.example.org?",
        "https://multi.example.org#x",
        "https://multi.example.org/..",
        "https://multi.example.org//",
        "https://multi.example.org/.",
        "https:///multi.example.org",
        "https://multi%2eexample.org",
        "https://mult\u{131}.example.org",
        "https://multi.example.org.",
        "http://multi.example.org",
        " https://multi.example.org",
        "https://multi.example.org\u{0}",
        "https://multi.example.org\n",
    ];
    stand.all_refused(ISSUER_UNKNOWN, changed(&stand, &spellings.map(|iss| json!({ "iss": iss })))).await;
}

#[tokio::test]
async fn t_037_a_lifetime_without_measure_is_refused() {
    let stand = Stand::new();
    let cap = START.as_s() + 24 * 3600;
    let beyond = (cap + 1).to_string();
    let values = [
        "18446744073709551615",
        "9223372036854775807",
        "1000000000000000000",
        "1e18",
        "1.8e9",
        "1500000000.5",
        "1800000300.0",
        "-0",
        "-0.0",
        "18446744073709551616",
        &beyond,
    ];
    stand.all_refused(CLAIM, raw(&stand, "exp", &values)).await;
    for name in ["iat", "nbf"] {
        stand.all_refused(CLAIM, raw(&stand, name, &["1.8e9", "1e400", "-0.0", "18446744073709551616"][..1])).await;
        stand.all_refused(EXPIRED, raw(&stand, name, &["9223372036854775807", "1000000000000000000"])).await;
    }
    stand.opens(&stand.forge.raw_claim("exp", &cap.to_string())).await;
}

#[tokio::test]
async fn t_038_exp_has_no_leeway() {
    let stand = Stand::new();
    let at = START.as_s();
    let dead = [json!({ "exp": at - 1 }), json!({ "exp": at }), json!({ "exp": 0 })];
    stand.all_refused(EXPIRED, changed(&stand, &dead)).await;
    let early = [json!({ "iat": at + 31 }), json!({ "nbf": at + 31 })];
    stand.all_refused(EXPIRED, changed(&stand, &early)).await;
    for good in [json!({ "exp": at + 1 }), json!({ "iat": at + 30 }), json!({ "nbf": at + 30 })] {
        stand.opens(&stand.forge.claims(good)).await;
    }
}

#[tokio::test]
async fn t_039_blank_claims_are_refused() {
    let stand = Stand::new();
    let blanks = ["", " ", "\u{a0}", "\t\n", "\u{0}", "\u{3000}"];
    stand.all_refused(CLAIM, changed(&stand, &blanks.map(|sub| json!({ "sub": sub })))).await;
    stand.all_refused(CLAIM, changed(&stand, &["", " ", "\u{a0}"].map(|jti| json!({ "jti": jti })))).await;
    stand.all_refused(STRANGER, changed(&stand, &blanks.map(|org| json!({ "org": org })))).await;
}

#[tokio::test]
async fn t_040_types_are_not_coerced() {
    let typed = "reviewed = { at = \"/reviewed\", type = \"bool\" }\nlevel = { at = \"/level\", type = \"long\" }\n\n[issuer.multi]";
    let text = bundle().replacen("\n[issuer.multi]", typed, 1).replacen(
        "id     = \"multi-deploys\"\nissuer = \"multi\"\nclaims = { sub = \"shop\" }",
        "id     = \"multi-deploys\"\nissuer = \"multi\"\nclaims = { sub = \"shop\", reviewed = true, level = 3 }",
        1,
    );
    let stand = Stand::of(&text);
    for (name, values) in [
        ("reviewed", [json!("false"), json!("true"), json!(0), json!(1), json!("0"), json!([true])]),
        ("level", [json!("3"), json!(3.0), json!(true), json!([3]), json!("03"), json!(3.5)]),
    ] {
        let tokens = values.map(|value| {
            let mut other = json!({ "reviewed": true, "level": 3 });
            other[name] = value;
            other
        });
        stand.all_refused(CLAIM, changed(&stand, &tokens)).await;
        stand.all_refused(CLAIM, raw(&stand, name, &["null"])).await;
    }
    stand.opens(&stand.forge.claims(json!({ "reviewed": true, "level": 3 }))).await;
    let unreviewed = stand.present(&stand.forge.claims(json!({ "reviewed": false, "level": 3 }))).await;
    refusal(&unreviewed, (400, "invalid_scope", "E-NOMATCH"), "read as what it is");
}

#[tokio::test]
async fn a_stranger_is_counted_and_leaves_nothing() {
    let stand = Stand::new();
    let orgs = ["evil", "acme2", "ACME", "acme ", "*", "acm"];
    stand.all_refused(STRANGER, changed(&stand, &orgs.map(|org| json!({ "org": org })))).await;
    stand.all_refused(STRANGER, changed(&stand, &[json!({ "org": null }), json!({ "org": ["acme"] })])).await;
    assert_eq!(stand.counted("dayfly_evidence_refused_total", "E-STRANGER"), 8);
}

#[tokio::test]
async fn t_043_a_single_use_value_has_one_spelling() {
    let stand = Stand::new();
    let first = stand.world.sign(Job::shop().with("jti", "One"));
    stand.opens(&first).await;
    let again = stand.present(&first).await;
    refusal(&again, (400, "invalid_request", "E-REPLAYED"), "the same");
    // Another spelling is another id, and the issuer's to give: it is used up by itself.
    for jti in ["one", "One ", "O\u{6e}e2"] {
        let evidence = stand.world.sign(Job::shop().with("jti", jti));
        stand.opens(&evidence).await;
        let used = stand.world.sign(Job::shop().with("jti", jti).run("other"));
        refusal(&stand.present(&used).await, (400, "invalid_request", "E-REPLAYED"), jti);
    }
    // The token around it has one spelling only.
    let padded = [format!("{first} "), format!("{first}="), first.to_uppercase(), format!("\t{first}")];
    stand.all_refused(SIGNATURE, padded.map(|token| ("spelled".to_owned(), token))).await;
}

#[tokio::test]
async fn t_044_a_cut_handle_is_no_handle() {
    let mut stand = Stand::new();
    let evidence = stand.evidence(&Job::shop());
    let opened = stand.opens(&evidence).await;
    let handle = opened["task_control"].as_str().unwrap().to_owned();
    let before = stand.tally().await;
    let feed = |text: &str| {
        let fields = [("subject_token", text.to_owned()), ("subject_token_type", super::stand::CONTROL.to_owned())];
        super::stand::exchange(&fields.each_ref().map(|(name, value)| (*name, value.as_str())))
    };
    let mut cut: Vec<String> = (1..handle.len()).map(|length| handle[..length].to_owned()).collect();
    cut.extend((1..handle.len()).map(|start| handle[start..].to_owned()));
    cut.extend(["A", "=", " ", "\n", "AAAA", "\u{0}"].map(|more| format!("{handle}{more}")));
    cut.extend([handle.to_uppercase(), handle.to_lowercase(), format!(" {handle}"), handle.replace("dtc_", "")]);
    cut.retain(|text| *text != handle);
    for text in cut {
        let answer = stand.world.call(feed(&text)).await;
        refusal(&answer, (400, "invalid_request", "E-HANDLE"), &text);
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            assert_eq!(stand.world.call(crate::world::get("/v1/tasks", Some(&text))).await.status, 401, "{text}");
        }
    }
    assert_eq!(stand.tally().await, before);
    assert_eq!(stand.world.call(feed(&handle)).await.status, 200);
}
