//! Things as a broker would answer them, for tests.

use dayfly_domain::{LeaseId, TaskId};
use serde_json::{Value, json};

pub fn task_id(n: u64) -> TaskId {
    TaskId::from_parts(n, [0; 10])
}

pub fn lease_id(n: u64) -> LeaseId {
    LeaseId::from_parts(n, [0; 10])
}

pub fn task(n: u64) -> Value {
    json!({
        "id": task_id(n), "state": "active", "template": "deploy-prod", "purpose": "release the shop",
        "owner": "team-shop", "workload": "github/4411/88120", "issuer": "github", "job": "88120/9421/1/7",
        "opened_at": "2026-11-22T05:00:00Z", "deadline": "2026-11-22T05:15:00Z",
        "grants": { "shop-production": ["deploy:create", "deploy:read"] }, "bound": "none",
        "leases": { "active": 2, "ended": 1 }, "from_a_newer_broker": true,
    })
}

pub fn lease(n: u64) -> Value {
    json!({
        "id": lease_id(n), "task": task_id(n), "state": "ended", "cause": "revoked", "kind": "jwt",
        "workload": "github/4411/88120", "owner": "team-shop", "target": "shop-production",
        "actions": ["deploy:create"], "template": "deploy-prod", "row": "shop-main", "bound": "none",
        "issued_at": "2026-11-22T05:00:00Z", "expires_at": "2026-11-22T05:15:00Z",
        "ended_at": "2026-11-22T05:01:00Z", "ended_by": "local:0", "reason": "gone\u{1b}[2J",
        "ledger": { "stream": "00112233445566778899aabbccddeeff", "seq": 7 },
    })
}

pub fn ended(id: &str) -> Value {
    json!({
        "id": id, "state": "ended", "cause": "revoked", "ended_at": "2026-11-22T05:01:00Z", "leases_ended": 2,
        "revocation": [
            { "channel": "introspection", "known": true, "worst_case_at": "2026-11-22T05:01:30Z" },
            { "channel": "expiry", "known": false, "worst_case_at": "2026-11-22T05:15:00Z" },
        ],
    })
}

pub fn event(n: u64) -> Value {
    json!({
        "id": dayfly_domain::EventId::from_parts(n, [0; 10]), "seq": n, "at": "2026-11-22T05:00:00Z",
        "type": "denied", "outcome": "denied", "reason": "E-NOMATCH", "workload": "github/4411/88120",
        "details": { "ref": "refs/heads/\u{202e}x" },
    })
}

/// Answer of `/oauth2/token`; the token's payload says who owns the task.
pub fn issued(n: u64) -> Value {
    json!({
        "access_token": "eyJh.eyJvd25lciI6InRlYW0tc2hvcCJ9.c2ln",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer",
        "expires_in": 900, "scope": "deploy-prod",
        "authorization_details": [{
            "type": "dayfly_task", "template": "deploy-prod", "locations": ["https://shop.example"],
            "actions": ["deploy:create"], "purpose": "release the shop",
        }],
        "task_id": task_id(n), "lease_id": lease_id(n), "expires_at": "2026-11-22T05:15:00Z",
        "task_deadline": "2026-11-22T05:15:00Z", "ledger": { "stream": "00112233445566778899aabbccddeeff", "seq": 7 },
        "revocation": [{ "channel": "introspection", "usual_s": 30, "bound_s": 30 }],
    })
}
