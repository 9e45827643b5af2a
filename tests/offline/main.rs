//! Tests that need no kernel and no root.

mod recording;
