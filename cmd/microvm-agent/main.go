//go:build linux

// Command microvm-agent is the first process of a microVM: it boots a base image with a writable layer over it, and executes commands for the host. The driver
// puts it into the initial RAM file system.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/tangle-network/microvm-runtime/internal/agent"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "microvm-agent: this is the first process of a microVM; it does nothing elsewhere")
		os.Exit(2)
	}
	defer func() { // a panic of the first process would be the kernel's; it ends the machine all the same, with a reason
		if r := recover(); r != nil {
			die(fmt.Errorf("panic: %v", r))
		}
	}()
	if err := run(); err != nil {
		die(err)
	}
}

// die says why on the console and resets the machine, so that the host sees its end.
func die(err error) {
	fmt.Println("microvm-agent:", err)
	time.Sleep(10 * time.Millisecond) // the serial port is slow
	agent.Reset()
}

func run() error {
	if err := agent.Boot(); err != nil {
		return err
	}
	if err := agent.HoldCtrlAltDel(); err != nil {
		return err
	}
	listener, err := vsock.Listen(wire.Port, nil)
	if err != nil {
		return fmt.Errorf("listen on vsock port %d: %w", wire.Port, err)
	}
	metadata, err := vsock.Listen(wire.MetadataPort, nil)
	if err != nil {
		return fmt.Errorf("listen on vsock port %d: %w", wire.MetadataPort, err)
	}
	ctx, halt := context.WithCancel(context.Background())
	server := agent.New(agent.Options{First: true, Shutdown: halt, Secrets: agent.SecretsDir, Workload: agent.WorkloadDir})
	go watchSignals(server, halt)
	served := make(chan error, 2)
	go func() { served <- server.Serve(context.Background(), listener) }()
	go func() { served <- server.ServeMetadata(context.Background(), metadata) }()
	go server.Observe(ctx)
	fmt.Printf("microvm-agent ready after %.3f s\n", bootSeconds())
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		server.EndCopies()
		server.EndFreeze()
		return agent.Halt()
	}
}

// watchSignals reaps, and takes Ctrl-Alt-Del and init's own signals as the wish to end.
func watchSignals(server *agent.Server, halt func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	for s := range signals {
		if s == syscall.SIGCHLD {
			server.Reap()
			continue
		}
		halt()
	}
}

func bootSeconds() float64 {
	var text [32]byte
	f, err := os.Open("/proc/uptime")
	if err != nil {
		return 0
	}
	defer f.Close()
	n, _ := f.Read(text[:])
	var seconds float64
	fmt.Sscan(string(text[:n]), &seconds)
	return seconds
}
