# DHCP options on ports of every type, with addresses inside and outside of the subnet, incomplete and malformed ones.
ovn-nbctl ls-add sw0
add() {
    ovn-nbctl lsp-add sw0 "$1" -- lsp-set-type "$1" "$2" \
        -- --id=@v4 create DHCP_Options cidr="$3" "options=$4" -- set Logical_Switch_Port "$1" dhcpv4_options=@v4 \
        -- --id=@v6 create DHCP_Options 'cidr="fd00::/64"' "options=$5" -- set Logical_Switch_Port "$1" dhcpv6_options=@v6 \
        >/dev/null
}
v4='"server_id"="10.0.0.254" "server_mac"="00:00:00:00:00:fe" "lease_time"="3600"'
v6='"server_id"="00:00:00:00:00:fe"'
for type in external localport localnet l2gateway virtual remote vtep; do
    add "of-$type" "$type" 10.0.0.0/24 "$v4" "$v6"
done
# step
add plain "" 10.0.0.0/24 "$v4" "$v6"
# step
ovn-nbctl lsp-set-addresses plain "00:00:00:00:00:01 10.0.0.1 fd00::1"
# step
ovn-nbctl lsp-set-addresses plain "00:00:00:00:00:01 10.1.0.1 fd01::1"
# step
ovn-nbctl lsp-set-addresses plain unknown
# step
ovn-nbctl lsp-set-addresses plain "00:00:00:00:00:01 10.0.0.1 fd00::1" "00:00:00:00:00:02 10.0.0.2 fd00::2"
# step
ovn-nbctl lsp-set-enabled plain disabled
# step
ovn-nbctl lsp-set-enabled plain enabled -- clear Logical_Switch_Port plain dhcpv4_options
# step
add badcidr "" bogus "$v4" "$v6"
add junk "" 10.0.0.0/24 '"server_id"="junk" "server_mac"="junk" "lease_time"="3600"' '"server_id"="junk"'
add nolease "" 10.0.0.0/24 '"server_id"="10.0.0.254" "server_mac"="00:00:00:00:00:fe"' '"foo"="1"'
ovn-nbctl set Logical_Switch_Port badcidr 'addresses="00:00:00:00:00:05 10.0.0.5 fd00::5"'
ovn-nbctl set Logical_Switch_Port junk 'addresses="00:00:00:00:00:06 10.0.0.6 fd00::6"'
ovn-nbctl set Logical_Switch_Port nolease 'addresses="00:00:00:00:00:07 10.0.0.7 fd00::7"'
