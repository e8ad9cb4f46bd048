# Address sets, port groups, and what northd generates from them.
ovn-nbctl ls-add sw0 -- ls-add sw1
ovn-nbctl lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1 fd00::1"
ovn-nbctl lsp-add sw0 p2 -- lsp-set-addresses p2 "00:00:00:00:00:02 10.0.0.2 10.0.0.22" "00:00:00:00:00:12 fd00::12"
ovn-nbctl lsp-add sw1 p3 -- lsp-set-addresses p3 "00:00:00:00:00:03 10.0.0.3"
ovn-nbctl create Address_Set name=as1 addresses='"10.0.0.1","10.0.0.2"'
ovn-nbctl create Address_Set name=as2
ovn-nbctl pg-add pg1 p1 p2 p3
ovn-nbctl pg-add pg2
ovn-nbctl pg-add pg3 p3
ovn-nbctl pg-set-ports pg2 p2
ovn-nbctl lsp-set-addresses p2 "00:00:00:00:00:02 10.0.0.200"
ovn-nbctl lsp-del p3
ovn-nbctl pg-del pg2
ovn-nbctl set Address_Set as1 addresses='"10.0.0.9"'
ovn-nbctl destroy Address_Set as2
