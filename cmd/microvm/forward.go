//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
)

func forwardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forward VM [HOST:]PORT:GUESTPORT...",
		Short: "Connect ports of the host with ports of the guest's loopback until Ctrl-C; HOST is 127.0.0.1 unless given, and port 0 any that is free",
		Args:  count(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ports, err := forwards(args[1:])
			if err != nil {
				return usageError{err}
			}
			return vmVerb(func(ctx context.Context, vm *microvm.VM, _ []string) error {
				if err := hasAgent(ctx, vm, "execute in"); err != nil {
					return err
				}
				return forward(ctx, vm, ports)
			})(cmd, args)
		},
	}
}

// port is one that is forwarded: both addresses are HOST:PORT.
type port struct{ host, guest string }

// forwards reads [HOST:]PORT:GUESTPORT. A HOST that is an IPv6 address stands in brackets.
func forwards(args []string) ([]port, error) {
	var all []port
	for _, text := range args {
		at := strings.LastIndexByte(text, ':')
		if at < 0 {
			return nil, fmt.Errorf("forward %q: it must be [HOST:]PORT:GUESTPORT", text)
		}
		host := text[:at]
		if !strings.Contains(host, ":") {
			host = "127.0.0.1:" + host
		}
		p := port{host, "127.0.0.1:" + text[at+1:]}
		if _, _, err := net.SplitHostPort(host); err != nil || strings.HasSuffix(host, ":") || text[at+1:] == "" {
			return nil, fmt.Errorf("forward %q: it must be [HOST:]PORT:GUESTPORT", text)
		}
		all = append(all, p)
	}
	return all, nil
}

// forward listens everywhere before it says so, and ends with the first that fails. The end by a signal is no failure.
func forward(ctx context.Context, vm guest.Dialer, ports []port) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, p := range ports {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", p.host)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	ended := make(chan error)
	for i, l := range listeners {
		fmt.Fprintf(os.Stderr, "%s is %s in the guest\n", l.Addr(), ports[i].guest)
		go func() { ended <- guest.Forward(ctx, vm, l, ports[i].guest) }()
	}
	var err error
	for range listeners {
		if one := <-ended; err == nil && !errors.Is(one, context.Canceled) {
			err = one
		}
		cancel()
	}
	return err
}
