# The switch's vlan-passthru reaches the bindings of its ports of every type, and leaves them again.
ovn-nbctl ls-add sw0 -- set Logical_Switch sw0 other_config:vlan-passthru=true
# step
for type in "" localnet localport l2gateway external virtual remote vtep; do
    ovn-nbctl lsp-add sw0 "p-$type" -- lsp-set-type "p-$type" "$type" -- lsp-set-options "p-$type" network_name=physnet0
done
# step
ovn-nbctl set Logical_Switch sw0 other_config:vlan-passthru=false
# step
ovn-nbctl set Logical_Switch sw0 other_config:vlan-passthru=true
# step
ovn-nbctl remove Logical_Switch sw0 other_config vlan-passthru
