//go:build linux

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/tangle-network/microvm-runtime/internal/netns"
)

// Attributes that choose entries of connection tracking in the kernel, from Linux 5.8 (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	attributeFilter   = 25 // CTA_FILTER
	filterOfOriginal  = 1  // CTA_FILTER_ORIG_FLAGS
	filterOfReply     = 2  // CTA_FILTER_REPLY_FLAGS
	filterSource      = 1  // CTA_FILTER_FLAG(CTA_IP_SRC)
	tupleOfOriginal   = 1  // CTA_TUPLE_ORIG
	tupleOfReply      = 2  // CTA_TUPLE_REPLY
	tupleAddresses    = 1  // CTA_TUPLE_IP
	addressOfSource4  = 1  // CTA_IP_V4_SRC
	netfilterHeader   = 4  // struct nfgenmsg
	conntrackMessages = int(netlink.ConntrackTable) << 8
)

// endFlows ends the flows of a namespace that an address is in: those that it began, and those that lead to it. The kernel chooses them: however many others there are, none is listed.
func endFlows(ns *netns.Namespace, address netip.Addr) error {
	return ns.Do(func() error {
		return errors.Join(endFlowsOf(address, tupleOfOriginal, filterOfOriginal), endFlowsOf(address, tupleOfReply, filterOfReply))
	})
}

// endFlowsOf ends those whose tuple has the address as its source.
func endFlowsOf(address netip.Addr, tuple, filter int) error {
	request := conntrackRequest(nl.IPCTNL_MSG_CT_GET, syscall.NLM_F_DUMP)
	of := nl.NewRtAttr(tuple|syscall.NLA_F_NESTED, nil)
	of.AddRtAttr(tupleAddresses|syscall.NLA_F_NESTED, nil).AddRtAttr(addressOfSource4, address.AsSlice())
	request.AddData(of)
	choice := nl.NewRtAttr(attributeFilter|syscall.NLA_F_NESTED, nil)
	choice.AddRtAttr(filter, nl.Uint32Attr(filterSource))
	request.AddData(choice)
	flows, err := request.Execute(syscall.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list flows of %s: %w", address, err)
	}
	for _, flow := range flows {
		request := conntrackRequest(nl.IPCTNL_MSG_CT_DELETE, syscall.NLM_F_ACK)
		request.AddRawData(flow[netfilterHeader:]) // its id among it: no other can be hit
		if _, err := request.Execute(syscall.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("end a flow of %s: %w", address, err)
		}
	}
	return nil
}

// within chooses flows of a subnet's addresses.
type within netip.Prefix

// MatchConntrackFlow says whether the flow began in the subnet, or leads to it.
func (w within) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{flow.Forward.SrcIP, flow.Reverse.SrcIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && netip.Prefix(w).Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// endFlowsWithin ends the flows of a namespace that addresses of a subnet are in. It lists all that there are.
func endFlowsWithin(ns *netns.Namespace, subnet netip.Prefix) error {
	return ns.Do(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, within(subnet))
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("end flows of %s: %w", subnet, err)
		}
		return nil
	})
}

// endAllFlows ends those of the namespace that the calling thread is in.
func endAllFlows() error {
	if _, err := conntrackRequest(nl.IPCTNL_MSG_CT_DELETE, syscall.NLM_F_ACK).Execute(syscall.NETLINK_NETFILTER, 0); err != nil {
		return fmt.Errorf("end all flows: %w", err)
	}
	return nil
}

func conntrackRequest(message, flags int) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(conntrackMessages|message, flags)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: syscall.AF_INET, Version: nl.NFNETLINK_V0})
	return request
}
