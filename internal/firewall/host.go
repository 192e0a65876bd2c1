//go:build linux

package firewall

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// HostConfig is what the host's table is a function of.
type HostConfig struct {
	ID     string       // The table is microvm-ID.
	Link   string       // The host's link to the hub.
	Subnet netip.Prefix // Of all slots.
	// Published and Admitted are what is published and admitted at first, or again after the table was lost. What there is beside them stays.
	Published []Publication
	Admitted  []Admission
}

// Admission lets a slot speak to an address of the host, which a rule of its policy must open too.
type Admission struct {
	Slot, Address netip.Addr
}

// Host is our table in the host's namespace. Its methods may be called at the same time, and other processes may have Hosts of the same table.
type Host struct {
	mu     sync.Mutex
	conn   *conn
	ns     *netns.Namespace
	config HostConfig
}

// OpenHost opens the table in a namespace, nil for the caller's; a handle must stay open as long as the Host. It changes nothing.
func OpenHost(ns *netns.Namespace, c HostConfig) (*Host, error) {
	if c.ID == "" || c.Link == "" || !c.Subnet.IsValid() || !c.Subnet.Addr().Is4() {
		return nil, fmt.Errorf("firewall: the host's table needs an ID, a link, and an IPv4 subnet")
	}
	kernel, err := dial(ns)
	if err != nil {
		return nil, err
	}
	return &Host{conn: kernel, ns: ns, config: c}, nil
}

// Close releases the socket and leaves the table.
func (h *Host) Close() error { return h.conn.Close() }

// Names in the host's table.
const (
	publishedAt       = "published"     // address, protocol and port
	publishedAnywhere = "published-any" // protocol and port, at any address
	admitted          = "admitted"      // slots and the host's addresses
)

// tablePrefix is what our tables of the host begin with, whatever their ID.
const tablePrefix = "microvm-"

func (h *Host) table() nftables.Table {
	return nftables.Table{Name: tablePrefix + h.config.ID, Family: nftables.TableFamilyIPv4}
}

// Install makes the table what it should be, in one transaction. Ports that are published stay.
func (h *Host) Install() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.config.Published {
		if err := p.check(); err != nil {
			return err
		}
	}
	for _, a := range h.config.Admitted {
		if !a.Slot.Is4() || !a.Address.Is4() {
			return fmt.Errorf("firewall: admission of %s to %s must be of IPv4", a.Slot, a.Address)
		}
	}
	if err := h.conn.install(ruleset{h.rules()}, false); err != nil {
		return fmt.Errorf("install the host's table %s: %w", h.table().Name, orTaken(err))
	}
	return nil
}

// rules are as many as they are, however many slots there are.
func (h *Host) rules() *table {
	t := &table{Table: h.table(), closing: closingTimeout}
	h.addSets(t)
	one := all(match{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: second},
		&expr.Payload{DestRegister: third, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, translateBy(publishedAt))
	anywhere := all(isLocal(), match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: second, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, translateBy(publishedAnywhere))
	t.addBase("prerouting", natHook(nftables.ChainHookPrerouting, -100), one, anywhere)
	t.addBase("output", natHook(nftables.ChainHookOutput, -100), one, anywhere)

	link, subnet := h.config.Link, h.config.Subnet
	t.addBase("postrouting", natHook(nftables.ChainHookPostrouting, 100),
		all(fromNet(subnet), goesByOther(link), match{&expr.Masq{}}),
		all(fromNet(netip.MustParsePrefix("127.0.0.0/8")), goesBy(link), match{&expr.Masq{}}),
	)
	filter := func(at *nftables.ChainHook) base {
		return base{kind: nftables.ChainTypeFilter, hook: at, policy: nftables.ChainPolicyAccept}
	}
	const known = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	// What follows an end that the connection tracking forgot at once, such as a FIN again, is in no state and would leave without translation.
	lost := all(comesBy(link), state(expr.CtStateBitINVALID), drop())
	tooMany := all(comesBy(link), isNew(), header(12, 4), in(countedSet), drop())
	t.addBase("input", filter(nftables.ChainHookInput),
		all(comesBy(link), state(known), accept()),
		lost, tooMany, all(comesBy(link), isNew(), closing()),
		all(comesBy(link), match{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Payload{DestRegister: second, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		}, in(admitted), accept()),
		all(comesBy(link), drop()),
	)
	t.addBase("forward", filter(nftables.ChainHookForward),
		all(comesBy(link), notFromNet(subnet), drop()),
		lost, tooMany, all(comesBy(link), isNew(), closing()),
		all(comesBy(link), accept()),
		all(goesBy(link), state(known), accept()),
		all(goesBy(link), isNew(), closing()),
		all(goesBy(link), translated(), accept()),
		all(goesBy(link), drop()),
	)
	return t
}

// addSets adds what is published, and who is admitted.
func (h *Host) addSets(t *table) {
	elements := map[string][]nftables.SetElement{}
	for _, p := range h.config.Published {
		set, element := h.element(p)
		elements[set.Name] = append(elements[set.Name], element)
	}
	toAny := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	toOne := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	t.addGrowingSet(nftables.Set{Name: publishedAt, IsMap: true, KeyType: toOne, DataType: target}, elements[publishedAt]...)
	t.addGrowingSet(nftables.Set{Name: publishedAnywhere, IsMap: true, KeyType: toAny, DataType: target}, elements[publishedAnywhere]...)

	var admissions []nftables.SetElement
	for _, a := range h.config.Admitted {
		admissions = append(admissions, nftables.SetElement{Key: append(addr(a.Slot), addr(a.Address)...)})
	}
	t.sets = append(t.sets, &set{Set: nftables.Set{Name: countedSet, KeyType: nftables.TypeIPAddr}, grows: true, capped: true})
	t.addGrowingSet(nftables.Set{Name: admitted, KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)}, admissions...)
}

// Present says whether the table is there with all its chains, and as many rules in each as there should be.
func (h *Host) Present() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	want := map[string]int{}
	for _, c := range h.rules().chains {
		want[c.name] = len(c.rules)
	}
	answers, err := h.conn.request(messageGetChain, netlink.Dump, nftables.TableFamilyIPv4, nil)
	if err != nil {
		return false, fmt.Errorf("read nf_tables: %w", err)
	}
	for _, answer := range answers {
		if len(answer.Data) < 4 {
			continue
		}
		const use = 6 // rules of a chain that nothing jumps to
		fields := values(answer.Data[4:])
		if name := text(fields[attrChainName]); text(fields[attrTable]) == h.table().Name && int(number32(fields[use])) >= want[name] {
			delete(want, name)
		}
	}
	return len(want) == 0, nil
}

// Remove removes the table; nil when there is none.
func (h *Host) Remove() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	table := h.table()
	b := newBatch()
	b.addTable(&table) // so that there is one
	b.deleteTable(&table)
	if err := h.conn.transact(b, 0); err != nil {
		return fmt.Errorf("remove the host's table %s: %w", table.Name, err)
	}
	return nil
}
