
set edit:completion:arg-completer[tmpcred] = { |@words|
    var index = (count $words)
    set index = (- $index 1)

    put (env _CLAP_IFS="\n" _CLAP_COMPLETE_INDEX=(to-string $index) TMPCRED_COMPLETE="elvish" tmpcred -- $@words) | to-lines
}

