//! Seeded histories with their true order.
