//go:build linux

package firewall

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestHostProbe: what this kernel takes is no fault, and of what it doesn't take exactly that is named.
func TestHostProbe(t *testing.T) {
	ring.Host(t)
	if err := Probe(); err != nil {
		t.Fatal(err)
	}
	list := needs()
	lacks := list[2]
	for _, c := range lacks.table.chains {
		c.rules = []match{{&expr.Objref{Type: 7, Name: "nobody"}}} // as a kernel answers that has no such expression
	}
	err := probe(newNamespace(t), list)
	var told *LacksError
	if !errors.As(err, &told) || told.Option != "CONFIG_NFT_CONNLIMIT" || strings.Count(err.Error(), "the kernel has no") != 1 {
		t.Errorf("%v", err)
	}
}
