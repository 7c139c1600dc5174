//! weir-backend-stock.
