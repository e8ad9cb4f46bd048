# Live migration: several requested chassis, and what controllers write meanwhile.
ovn-nbctl ls-add sw0 -- lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1" -- lsp-set-options p1 requested-chassis=ch1
ovn-sbctl chassis-add ch1 geneve 127.0.0.1 -- chassis-add ch2 geneve 127.0.0.2
ovn-sbctl lsp-bind p1 ch1
ovn-nbctl lsp-set-options p1 requested-chassis=ch1,ch2 activation-strategy=rarp
ovn-sbctl set port_binding p1 options:additional-chassis-activated=ch2
ovn-nbctl lsp-set-options p1 requested-chassis=ch2
ovn-sbctl lsp-unbind p1 -- lsp-bind p1 ch2
ovn-nbctl lsp-set-options p1
