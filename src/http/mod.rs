//! The HTTP door: forms and JSON in, flow's verbs, answers out. It holds no rules.

mod assertion;
mod blocks;
mod body;
mod caller;
mod crl;
mod details;
mod door;
mod ending;
mod exchange;
mod explained;
mod filters;
mod form;
mod issuers;
mod metadata;
mod oauth;
mod ocsp;
mod operate;
mod ops;
mod peer;
mod pki;
mod proof;
mod refusal;
mod routes;
mod selecting;
pub mod shapes;
mod simulate;
mod status;
mod strict_json;
mod v1;
mod views;

use std::sync::Arc;

use axum::{Router, extract::Request, response::Response};

pub use door::Door;
pub use ops::{Ops, ops_router};
pub use peer::{Client, Peer};
pub use pki::pki_router;
pub use routes::{Listener, ROUTES, Route, RouteRow, Verb, Who};

/// How much a request may bring, for the reference.
pub mod bounds {
    pub use super::{
        body::BODY_MAX_BYTES, door::REQUEST_ID_MAX_BYTES, ending::REASON_MAX_CHARS, filters::LIMIT_MAX,
        form::FIELDS_MAX, operate::BUNDLE_TEXT_MAX_CHARS, simulate::HELD_MAX, strict_json::MEMBERS_MAX,
    };
}

/// The readers of what strangers send, for those who try to break them (tests/fuzz).
pub mod reading {
    pub use super::{
        details::{Details, parse as details},
        form::{Fields, FormError},
    };
}

use crate::flow::{Flow, Refused};
use door::Context;
use metadata::Document;

/// What the broker's own listener and its local socket serve. Every request carries its `Peer`
/// in its extensions; without one it comes from nobody.
#[derive(Clone)]
pub struct Front {
    pub flow: Flow,
    /// Over the same issuer URL as `flow`; shared with the accept loop.
    pub door: Door,
}

pub fn router(front: Front) -> Router {
    let Front { flow, door } = front;
    let metadata = Arc::new(Document::new(&metadata::metadata(flow.issuer(), flow.pki().is_some())));
    door.router(Listener::Broker, move |route, context, request| {
        let (flow, metadata) = (flow.clone(), metadata.clone());
        async move {
            let answer = serve(&flow, &metadata, route, &context, request).await;
            let answer = answer.unwrap_or_else(|refused| context.refuse(refused));
            proof::invite(answer, route, &flow)
        }
    })
}

async fn serve(
    flow: &Flow,
    metadata: &Document,
    route: Route,
    context: &Context,
    request: Request,
) -> Result<Response, Refused> {
    match route {
        Route::OAuthMetadata | Route::OpenIdMetadata => Ok(metadata.answer(request.headers())),
        Route::Jwks => Ok(Document::new(&flow.jwks()).answer(request.headers())),
        Route::Token => Ok(oauth::token(flow, context, request).await),
        Route::Introspect => oauth::introspect(flow, request).await,
        Route::Revoke => oauth::revoke(flow, request).await,
        Route::Tasks => v1::tasks(flow, &request.into_parts().0).await,
        Route::Task => v1::task(flow, &request.into_parts().0).await,
        Route::EndTask => v1::end_task(flow, request).await,
        Route::Beat => v1::beat(flow, request).await,
        Route::Leases => v1::leases(flow, &request.into_parts().0).await,
        Route::Lease => v1::lease(flow, &request.into_parts().0).await,
        Route::EndLease => v1::end_lease(flow, request).await,
        Route::End => selecting::end(flow, context, request).await,
        Route::Blocks => blocks::list(flow, &request.into_parts().0).await,
        Route::LiftBlock => blocks::lift(flow, &request.into_parts().0).await,
        Route::Events => v1::events(flow, &request.into_parts().0).await,
        Route::Event => v1::event(flow, &request.into_parts().0).await,
        Route::Entitlements => v1::entitlements(flow, &request.into_parts().0).await,
        Route::LoadBundle => operate::load(flow, context, request).await,
        Route::Keys => operate::keys(flow, &request.into_parts().0).await,
        Route::TaintKey => operate::taint(flow, request).await,
        Route::Cas => operate::cas(flow, &request.into_parts().0).await,
        Route::RotateCa => operate::rotate(flow, request).await,
        Route::Issuers => issuers::list(flow, &request.into_parts().0).await,
        Route::RefreshIssuer => issuers::refresh(flow, request).await,
        Route::Simulate => simulate::simulate(flow, request).await,
        Route::StatusList => status::list(flow, &request.into_parts().0).await,
        Route::StatusLists => status::lists(flow, &request.into_parts().0).await,
        Route::CaCertificate
        | Route::Crl
        | Route::CrlBundle
        | Route::OcspPost
        | Route::OcspGet
        | Route::SpiffeBundle => pki::serve(flow, route, request).await,
        Route::Healthz | Route::Readyz | Route::Metrics | Route::OpsIndex => {
            Err(dayfly_domain::Reason::NotFound.into())
        }
    }
}
