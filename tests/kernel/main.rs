//! Tests.

mod readme;
