//! The JOSE corpus as evidence: whatever a published vector is elsewhere, here it opens no task.

use serde_json::Value;

use crate::threats::{Stand, exchange_of, refused_quietly};

const FILES: [&str; 4] = [
    include_str!("../corpus/jose/rfc.json"),
    include_str!("../corpus/jose/wycheproof.json"),
    include_str!("../corpus/jose/own.json"),
    include_str!("../corpus/jose/ear.json"),
];

#[tokio::test]
async fn no_token_of_the_corpus_opens_a_task() {
    let stand = Stand::new();
    let (before, mut sent) = (stand.tally().await, 0);
    for file in FILES {
        let corpus: Value = serde_json::from_str(file).unwrap();
        for entry in corpus["entries"].as_array().unwrap() {
            let (id, token) = (entry["id"].as_str().unwrap(), entry["token"].as_str().unwrap());
            for kind in ["jwt", "id_token"] {
                let answer = stand.world.call(exchange_of(token, kind)).await;
                refused_quietly(&answer, token, id);
                sent += 1;
            }
        }
    }
    assert!(sent > 220);
    assert_eq!(stand.tally().await, before);
    stand.opens(&stand.forge.claims(serde_json::json!({}))).await;
}

/// With the very keys of the vectors in the bundle: those that verify are still not for us.
#[tokio::test]
async fn a_vector_under_its_own_key_is_still_no_evidence() {
    let corpus: Value = serde_json::from_str(FILES[0]).unwrap();
    let stand = Stand::trusting(&corpus["keys"]["rfc7515-a2"]);
    let before = stand.tally().await;
    for entry in corpus["entries"].as_array().unwrap() {
        let answer = stand.world.call(exchange_of(entry["token"].as_str().unwrap(), "jwt")).await;
        refused_quietly(&answer, entry["token"].as_str().unwrap(), entry["id"].as_str().unwrap());
    }
    assert_eq!(stand.tally().await, before);
    stand.opens(&stand.forge.header("RS256", serde_json::json!({ "kid": null }))).await;
}
