//! `/v1/tokens`. The secret is created here, returned once, and not stored: the engine and the
//! store get only its hash.

use axum::{
    Json,
    extract::{Path, State},
};
use dogwatch_alertd_core::rules::token::text_of;
use dogwatch_wire::ctl;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{Api, Failure, PATIENCE, Reply, access::Caller, body::Body};
use crate::engine::{Access, Input, keyring::hash_of};

pub(super) async fn list(State(api): State<Api>) -> Reply<Vec<ctl::Token>> {
    Ok(Json(api.ask(PATIENCE, |answer| Input::Access(Access::List(answer))).await?))
}

pub(super) async fn create(State(api): State<Api>, caller: Caller, body: Body) -> Reply<ctl::TokenMade> {
    let ask: ctl::NewToken = body.json()?;
    let mut random = [0; 32];
    let no_bits = |_| Failure::Unavailable("cannot get random bytes from the system".into());
    SystemRandom::new().fill(&mut random).map_err(no_bits)?;
    let secret = text_of(&random);
    let hash = hash_of(&secret);
    let token = api
        .ask_by(&caller, PATIENCE, |answer| Input::Access(Access::Create(ask, hash, caller.name(), answer)))
        .await??;
    Ok(Json(ctl::TokenMade { token, secret }))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Reply<ctl::Token> {
    Ok(Json(
        api.ask_by(&caller, PATIENCE, |answer| Input::Access(Access::Revoke(name, caller.name(), answer)))
            .await??,
    ))
}
