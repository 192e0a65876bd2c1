//go:build linux

// Command setup makes the parts that tests and the demo need; the Makefile calls it before there is anything else.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/tangle-network/microvm-runtime/internal/setup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if _, err := setup.Run(ctx, setup.Options{Progress: os.Stdout}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
