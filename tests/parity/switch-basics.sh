# Switches with VIF ports: static addresses of both families, port security, unknown addresses, disabled ports.
ovn-nbctl ls-add sw0
# step
ovn-nbctl lsp-add sw0 p1 -- lsp-set-addresses p1 "50:54:00:00:00:01 10.0.0.1"
# step
ovn-nbctl lsp-add sw0 p2 -- lsp-set-addresses p2 "50:54:00:00:00:02 10.0.0.2 fd00::2" \
    -- lsp-set-port-security p2 "50:54:00:00:00:02 10.0.0.2 fd00::2"
# step
ovn-nbctl lsp-add sw0 p3 -- lsp-set-addresses p3 unknown
# step
ovn-nbctl lsp-set-enabled p2 disabled
# step
ovn-nbctl lsp-set-addresses p1 "50:54:00:00:00:01 10.0.0.1" "50:54:00:00:00:11 10.0.0.11 10.0.0.12"
# step
ovn-nbctl ls-add sw1 -- lsp-add sw1 q1 -- lsp-set-addresses q1 "50:54:00:00:01:01"
# step
ovn-nbctl lsp-set-enabled p2 enabled -- lsp-del p3
# step
ovn-nbctl ls-del sw0
