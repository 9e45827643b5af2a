//! A recording: one Parquet file per host, one row per event, readable by any tool and after any crash.
//!
//! ```text
//! PAR1 │ checkpoint │ row group │ checkpoint │ row group │ checkpoint │ … │ checkpoint │ footer PAR1
//!        host         └────── one part ─────┘                           last host
//! ```
//!
//! Parquet readers find row groups through the footer and skip what lies between them. There we keep a
//! [`checkpoint`] after each row group: the metadata of that row group alone, the [`index`] of its events
//! and a hash of its bytes. A file without a footer is read from its checkpoints. docs/recording.md has
//! the columns and the rest.

pub mod columns;
pub mod write;

pub mod index;
pub mod partial;
pub mod read;

mod checkpoint;
mod decode;
mod encode;
mod file;
mod footer;
mod merge;
mod pages;
mod repair;
mod sources;
pub mod splice;

pub use repair::repair;

/// Rows of a full row group: what [`write::Writer`] holds in memory before it writes.
pub const PART_ROWS: usize = 131_072;

/// Version of the schema and of the metadata this program writes; it reads this one and all before it.
pub const SCHEMA_VERSION: u32 = 3;
