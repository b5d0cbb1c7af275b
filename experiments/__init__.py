"""The papers, one folder each: recipe, ledger, published tables, page, figures of its own."""
