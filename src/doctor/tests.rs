//! What is judged of what is seen.
