//go:build linux

package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// closingTimeout is the ct timeout of TCP's flows of guests: an entry that the connection tracking keeps of one that has ended expires at once. `ct count` leaves those that have ended out; the
// kernel finds that an entry has expired when it looks for it, and frees it then. So what is not counted is not there either, and a cap on flows is one on entries.
//
// The values of the other states are the namespace's own.
const closingTimeout = "closing"

// countedSet has the slots whose flows the host counts, with the cap of each.
const countedSet = "counted"

// Numbers of include/uapi/linux/netfilter/nf_tables.h and nfnetlink_cttimeout.h.
const (
	attrTimeoutFamily, attrTimeoutProtocol, attrTimeoutValues = 1, 2, 3
	attrTimeoutTimeWait, attrTimeoutClose                     = 7, 8

	attrSetExpression                      = 17
	attrExpressionName, attrExpressionData = 1, 2
	attrConnlimitCount, attrConnlimitFlags = 1, 2
	attrElements, attrElement              = 3, 1
	attrElementKey, attrElementExpr        = 1, 7
	attrDataValue                          = 1
)

// closing gives a flow of TCP that is new the short times. Of one that is confirmed already the kernel changes nothing.
func closing() match {
	return all(protocol(protoTCP), match{&expr.Objref{Type: int(nftables.ObjTypeCtTimeout), Name: closingTimeout}})
}

// addClosing adds the ct timeout. The library's encoding of it writes into a variable that all share.
func (b *batch) addClosing(t *nftables.Table, name string) {
	b.addOwn("ct timeout "+name, messageNewObject, t, slices.Concat(
		attribute(attrObjectName, zeroed(name)),
		attribute(attrObjectType, be32(uint32(nftables.ObjTypeCtTimeout))),
		nested(attrObjectData,
			attribute(attrTimeoutFamily, be16(syscall.AF_INET)),
			attribute(attrTimeoutProtocol, []byte{protoTCP}),
			nested(attrTimeoutValues, attribute(attrTimeoutTimeWait, be32(0)), attribute(attrTimeoutClose, be32(0))),
		),
	))
}

// moreThan is the expression of an element, which matches when there are more flows than its cap.
func moreThan(flows int, kind uint16) []byte {
	return nested(kind, attribute(attrExpressionName, zeroed("connlimit")), nested(attrExpressionData,
		attribute(attrConnlimitCount, be32(uint32(flows))), attribute(attrConnlimitFlags, be32(expr.NFT_CONNLIMIT_F_INV)),
	))
}

// setOfCaps says of a set that its elements count flows. Each has a cap of its own, that of the set is for none.
func setOfCaps() []byte { return moreThan(0, attrSetExpression) }

// addCap adds a slot to the set.
func (b *batch) addCap(t *nftables.Table, slot netip.Addr, flows int) {
	b.addOwn("the cap of "+slot.String(), messageNewElements, t, slices.Concat(
		attribute(attrObjectName, zeroed(countedSet)),
		nested(attrElements, nested(attrElement, nested(attrElementKey, attribute(attrDataValue, addr(slot))), moreThan(flows, attrElementExpr))),
	))
}

// capIn returns the cap that the data of an element's expression says, 0 for none.
func capIn(data []byte) int {
	if count := values(data)[attrConnlimitCount]; len(count) == 4 {
		return int(binary.BigEndian.Uint32(count))
	}
	return 0
}
