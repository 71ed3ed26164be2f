//! Whole-system proof. See `ARCHITECTURE.md`.
