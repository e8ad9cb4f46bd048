# Ports of containers inside a VM: parent and tag, requested and allotted.
ovn-nbctl ls-add sw0 -- ls-add sw1
ovn-nbctl lsp-add sw0 vm1 -- lsp-set-addresses vm1 "00:00:00:00:00:01 10.0.0.1"
ovn-nbctl lsp-add sw0 c1 vm1 10 -- lsp-set-addresses c1 "00:00:00:00:01:01 10.0.0.101"
ovn-nbctl lsp-add sw0 c2 vm1 0 -- lsp-set-addresses c2 "00:00:00:00:01:02 10.0.0.102"
ovn-nbctl lsp-add sw1 c3 vm1 0 -- lsp-set-addresses c3 unknown
ovn-nbctl lsp-add sw1 c4 vm1 1 -- lsp-set-addresses c4 "00:00:00:00:01:04"
ovn-nbctl lsp-add sw1 c5 nosuch 0
ovn-nbctl lsp-add sw1 c6 vm1 0
ovn-nbctl lsp-del c2
ovn-nbctl lsp-add sw1 c7 vm1 0
ovn-nbctl set logical_switch_port c1 tag_request=20
ovn-nbctl clear logical_switch_port c4 tag_request
ovn-nbctl clear logical_switch_port c3 parent_name
