//! Routes with their needs: a route cannot be added without stating them.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::Method,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};

use super::{
    Api,
    access::{Gate, Needs, check},
};

/// A method and path of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub method: Method,
    /// With `{name}` for parameters.
    pub path: &'static str,
    pub needs: Needs,
}

pub(crate) struct Routes {
    pub(super) router: Router<Api>,
    pub(super) endpoints: Vec<Endpoint>,
    gate: Arc<Gate>,
}

impl Routes {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        Self { router: Router::new(), endpoints: Vec::new(), gate: Arc::clone(gate) }
    }

    pub(crate) fn get<T: 'static>(
        self,
        path: &'static str,
        needs: Needs,
        handler: impl Handler<T, Api>,
    ) -> Self {
        self.add(Method::GET, path, needs, on(MethodFilter::GET, handler))
    }

    pub(crate) fn post<T: 'static>(
        self,
        path: &'static str,
        needs: Needs,
        handler: impl Handler<T, Api>,
    ) -> Self {
        self.add(Method::POST, path, needs, on(MethodFilter::POST, handler))
    }

    pub(crate) fn delete<T: 'static>(
        self,
        path: &'static str,
        needs: Needs,
        handler: impl Handler<T, Api>,
    ) -> Self {
        self.add(Method::DELETE, path, needs, on(MethodFilter::DELETE, handler))
    }

    fn add(mut self, method: Method, path: &'static str, needs: Needs, handled: MethodRouter<Api>) -> Self {
        let checked = middleware::from_fn_with_state((Arc::clone(&self.gate), needs), check);
        self.router = self.router.route(path, handled.route_layer(checked));
        self.endpoints.push(Endpoint { method, path, needs });
        self
    }
}
