//go:build linux

package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// HostConfig is what the host's table is a function of.
type HostConfig struct {
	ID     string       // The table is microvm-ID.
	Link   string       // The host's link to the hub.
	Subnet netip.Prefix // Of all slots.
	// Published is what is published at first, or again after the table was lost. What is published beside it and still there stays.
	Published []Publication
}

// Publication leads a port of the host to a port of a slot.
type Publication struct {
	Address  netip.Addr // Of the host; 0.0.0.0 for each that it has.
	Protocol egress.Protocol
	Port     uint16
	To       netip.AddrPort // The slot's address, and the port of its Ingress.
}

func (p Publication) check() error {
	if !p.Address.Is4() || p.Protocol != egress.TCP && p.Protocol != egress.UDP || p.Port == 0 || !p.To.Addr().Is4() || p.To.Port() == 0 {
		return fmt.Errorf("firewall: publication %s must be of IPv4, tcp or udp, and have both ports", p)
	}
	return nil
}

// String returns "tcp 192.0.2.1:8080 → 100.64.0.5:80".
func (p Publication) String() string {
	return fmt.Sprintf("%s %s → %s", p.Protocol, netip.AddrPortFrom(p.Address, p.Port), p.To)
}

// ErrTaken is returned when a port is published already, to somewhere else.
var ErrTaken = errors.New("the port is published already")

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
)

func (h *Host) table() nftables.Table {
	return nftables.Table{Name: "microvm-" + h.config.ID, Family: nftables.TableFamilyIPv4}
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
	if err := h.conn.install(ruleset{h.rules()}, false); err != nil {
		return fmt.Errorf("install the host's table %s: %w", h.table().Name, orTaken(err))
	}
	return nil
}

// orTaken says what it means when the kernel has another value for a key.
func orTaken(err error) error {
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("%w (see what is published): %w", ErrTaken, err)
	}
	return err
}

// rules are as many as they are, however many slots there are.
func (h *Host) rules() *table {
	t := &table{Table: h.table()}
	toAny := nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	toOne := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	elements := map[string][]nftables.SetElement{}
	for _, p := range h.config.Published {
		set, element := h.element(p)
		elements[set.Name] = append(elements[set.Name], element)
	}
	t.addGrowingSet(nftables.Set{Name: publishedAt, IsMap: true, KeyType: toOne, DataType: target}, elements[publishedAt]...)
	t.addGrowingSet(nftables.Set{Name: publishedAnywhere, IsMap: true, KeyType: toAny, DataType: target}, elements[publishedAnywhere]...)

	link, subnet := h.config.Link, h.config.Subnet
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
	t.addBase("postrouting", natHook(nftables.ChainHookPostrouting, 100),
		all(fromNet(subnet), goesByOther(link), match{&expr.Masq{}}),
		all(fromNet(netip.MustParsePrefix("127.0.0.0/8")), goesBy(link), match{&expr.Masq{}}),
	)
	filter := func(at *nftables.ChainHook) base {
		return base{kind: nftables.ChainTypeFilter, hook: at, policy: nftables.ChainPolicyAccept}
	}
	const known = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	t.addBase("input", filter(nftables.ChainHookInput),
		all(comesBy(link), state(known), accept()),
		all(comesBy(link), drop()),
	)
	t.addBase("forward", filter(nftables.ChainHookForward),
		all(comesBy(link), header(12, 4), match{masked(be32(^uint32(0) << (32 - subnet.Bits())))}, differs(addr(subnet.Addr())), drop()),
		all(comesBy(link), accept()),
		all(goesBy(link), state(known), accept()),
		all(goesBy(link), translated(), accept()),
		all(goesBy(link), drop()),
	)
	return t
}

// Publish leads ports to slots. A port that leads elsewhere already is ErrTaken, and then nothing is changed; one that leads there is fine.
func (h *Host) Publish(list ...Publication) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.publish(list)
}

func (h *Host) publish(list []Publication) error {
	b := newBatch()
	for _, p := range list {
		if err := p.check(); err != nil {
			return err
		}
		set, element := h.element(p)
		b.addElements(set, []nftables.SetElement{element})
	}
	if err := h.conn.transact(b, 0); err != nil {
		return fmt.Errorf("publish: %w", orTaken(err))
	}
	return nil
}

func (h *Host) element(p Publication) (*nftables.Set, nftables.SetElement) {
	table := h.table()
	to := padded(addr(p.To.Addr()), be16(p.To.Port()))
	port := padded([]byte{protocolNumber(p.Protocol)}, be16(p.Port))
	if p.Address.IsUnspecified() {
		return &nftables.Set{Table: &table, Name: publishedAnywhere, IsMap: true}, nftables.SetElement{Key: port, Val: to}
	}
	return &nftables.Set{Table: &table, Name: publishedAt, IsMap: true}, nftables.SetElement{Key: append(addr(p.Address), port...), Val: to}
}

// Unpublish ends what leads to a slot's address; nil when nothing does. Flows that came by it are for who removes them from the connection tracking.
func (h *Host) Unpublish(slot netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range attempts {
		generation, err := h.conn.generation()
		if err != nil {
			return err
		}
		list, err := h.published()
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		b := newBatch()
		for _, p := range list {
			if p.To.Addr() == slot {
				set, element := h.element(p)
				b.deleteElements(set, []nftables.SetElement{{Key: element.Key}})
			}
		}
		if err := h.conn.transact(b, generation); !errors.Is(err, errChanged) {
			return err
		}
	}
	return errChanged
}

// Published returns what is published, by address and port.
func (h *Host) Published() ([]Publication, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.published()
}

func (h *Host) published() ([]Publication, error) {
	table := h.table()
	var out []Publication
	for name, parts := range map[string]int{publishedAt: 3, publishedAnywhere: 2} {
		elements, err := h.conn.elements(&nftables.Set{Table: &table, Name: name})
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if len(e.key) != 4*parts || len(e.value) != 8 {
				continue
			}
			key := append(make([]byte, 12-4*parts), e.key...) // 0.0.0.0 where there is no address
			out = append(out, Publication{
				Address: netip.AddrFrom4([4]byte(key)), Protocol: protocolName(key[4]), Port: binary.BigEndian.Uint16(key[8:]),
				To: netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.value)), binary.BigEndian.Uint16(e.value[4:])),
			})
		}
	}
	slices.SortFunc(out, func(a, b Publication) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
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
