//go:build linux

package firewall

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
)

// groupNFTables is the multicast group of changes (NFNLGRP_NFTABLES).
const groupNFTables = 7

// Watch calls lost, on its own goroutine and one call after the other, each time that somebody has removed the table or parts of it, as nft flush ruleset and reloads of other
// firewalls do; also at once when it isn't there. It returns when the context ends: nil, or an error before. Calling Install is what lost is for.
func (h *Host) Watch(ctx context.Context, lost func()) error {
	events, err := h.listen()
	if err != nil {
		return fmt.Errorf("watch nf_tables: %w", err)
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	for look := true; ; {
		if look {
			there, err := h.Present()
			if err != nil {
				return err
			}
			if !there {
				lost()
			}
		}
		messages, err := events.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return fmt.Errorf("watch nf_tables: %w", err)
		}
		look = err != nil || h.concerns(messages) // without room for events some are lost
	}
}

func (h *Host) listen() (*netlink.Conn, error) {
	c, err := dial(h.ns)
	if err != nil {
		return nil, err
	}
	if err := c.JoinGroup(groupNFTables); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.Conn, nil
}

// concerns says whether something of the table was removed.
func (h *Host) concerns(messages []netlink.Message) bool {
	for _, m := range messages {
		switch m.Header.Type {
		case messageDelTable, messageDelChain, messageDelRule:
			if len(m.Data) >= 4 && text(values(m.Data[4:])[attrTable]) == h.table().Name {
				return true
			}
		}
	}
	return false
}
