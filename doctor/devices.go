//go:build linux

package doctor

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
)

func checkDevices(_ context.Context, h host, _ firecracker.Options) []Finding {
	return []Finding{checkTAP(h), checkNftables(h), checkUserfault(h)}
}

func checkTAP(h host) Finding {
	const check, remedy = "tap", "modprobe tun, and let this user open /dev/net/tun: a network needs it"
	if h.uid != 0 { // nor could this user be given one
		if _, err := os.Stat(h.path("/dev/net/tun")); err != nil {
			return warn(check, err.Error(), remedy)
		}
		return ok(check, "/dev/net/tun is there; only root can try it")
	}
	if err := h.makeTAP(); err != nil {
		return warn(check, err.Error(), remedy)
	}
	return ok(check, "a TAP device was made in a network namespace of its own")
}

func checkNftables(h host) Finding {
	const check, remedy = "nf_tables", "modprobe nf_tables: the rules of a network need it"
	const configured = "use a kernel with these options, or install the package that has its modules (nft_*, nfnetlink_*): the rules of a network need them"
	if h.uid != 0 {
		if _, err := os.Stat(h.path("/proc/net/netfilter")); err != nil {
			return warn(check, err.Error(), remedy)
		}
		return ok(check, "/proc/net/netfilter is there; only root can try it")
	}
	err := h.makeRules()
	if lacks := (*firewall.LacksError)(nil); errors.As(err, &lacks) {
		return warn(check, strings.ReplaceAll(err.Error(), "\n", "; "), configured)
	}
	if err != nil {
		return warn(check, err.Error(), remedy)
	}
	return ok(check, "a machine's rules were made in a network namespace of their own")
}

func checkUserfault(h host) Finding {
	const check = "userfaultfd"
	if err := h.makeUserfault(); err != nil {
		return warn(check, err.Error(), "use a kernel with CONFIG_USERFAULTFD, and root or vm.unprivileged_userfaultfd=1, for snapshots whose memory is no local file")
	}
	return ok(check, "a descriptor was made")
}
