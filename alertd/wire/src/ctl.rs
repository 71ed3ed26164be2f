//! What `alertctl` says and hears. (alertd's API grows here; see the module of the same name in `alertd/src/api`.)
