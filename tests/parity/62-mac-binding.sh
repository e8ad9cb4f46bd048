# What controllers learn about neighbours, and its clean-up.
ovn-nbctl --wait=sb ls-add sw0 -- set logical_switch sw0 other_config:requested-tnl-key=1 -- lsp-add sw0 p1 -- lsp-set-addresses p1 unknown -- lsp-add sw0 p2 -- ls-add sw1 -- lsp-add sw1 q1
ovn-sbctl create MAC_Binding logical_port=p1 ip=10.0.0.1 mac='"00:00:00:00:00:51"' datapath=$(ovn-sbctl --bare --columns=_uuid find Datapath_Binding external_ids:name=sw0)
ovn-sbctl create MAC_Binding logical_port=p2 ip=10.0.0.2 mac='"00:00:00:00:00:52"' datapath=$(ovn-sbctl --bare --columns=_uuid find Datapath_Binding external_ids:name=sw0)
ovn-sbctl create MAC_Binding logical_port=nobody ip=10.0.0.3 mac='"00:00:00:00:00:53"' datapath=$(ovn-sbctl --bare --columns=_uuid find Datapath_Binding external_ids:name=sw0)
ovn-sbctl create MAC_Binding logical_port=q1 ip=10.0.0.4 mac='"00:00:00:00:00:54"' datapath=$(ovn-sbctl --bare --columns=_uuid find Datapath_Binding external_ids:name=sw1)
ovn-nbctl --wait=sb sync
ovn-nbctl --wait=sb lsp-del p1
ovn-nbctl --wait=sb ls-del sw1
