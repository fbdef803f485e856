"""Other people's ways of serving the same graph, each the way that its documentation shows."""
