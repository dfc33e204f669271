complete --keep-order --exclusive --command tmpcred --arguments "(TMPCRED_COMPLETE=fish tmpcred -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
