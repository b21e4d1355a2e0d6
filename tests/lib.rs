//! Nothing is here: the package exists for its one integration binary, `it/`.
