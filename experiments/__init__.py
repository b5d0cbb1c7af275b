"""The papers, one folder each: recipe, ledger, published tables, README, own figures."""
