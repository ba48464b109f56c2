# Lists what a node has into the folder $1, in the form in which the dumps were recorded.
set -e
mkdir -p "$1"
ip -j -d link > "$1/links"
ip -j addr > "$1/addresses"
ip -j -d -4 route > "$1/routes4"
ip -j -d -6 route > "$1/routes6"
ip -j neigh show nud permanent > "$1/neighbours"
bridge -j fdb > "$1/fdb"
iptables-nft-save -t nat > "$1/nat"
iptables-nft-save -t filter > "$1/filter"
