# What controllers learn, and its clean-up.
ovn-nbctl --wait=sb ls-add sw0 -- set logical_switch sw0 other_config:requested-tnl-key=1 -- lsp-add sw0 p1 -- lsp-set-addresses p1 unknown -- ls-add sw1 -- set logical_switch sw1 other_config:requested-tnl-key=2 -- lsp-add sw1 p2 -- lsp-set-addresses p2 unknown
ovn-sbctl create FDB dp_key=1 port_key=1 mac='"00:00:00:00:00:51"'
ovn-sbctl create FDB dp_key=1 port_key=9 mac='"00:00:00:00:00:52"'
ovn-sbctl create FDB dp_key=9 port_key=1 mac='"00:00:00:00:00:53"'
ovn-nbctl --wait=sb sync
ovn-nbctl --wait=sb lsp-del p1
ovn-nbctl --wait=sb ls-del sw1
