//! `.mat` files to plain records.
