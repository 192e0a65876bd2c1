//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
)

func eventsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events [flags]",
		Short: "Print what happens to machines, by whatever process, until interrupted",
		Args:  count(0, 0),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, _ []string) error {
			events, err := rt.Watch(ctx, nil)
			if err != nil {
				return err
			}
			for event, err := range events {
				if err != nil {
					return err
				}
				if err := printEvent(event, asJSON); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func printEvent(event microvm.Event, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(event)
	}
	exit := ""
	if event.Exit != nil {
		exit = " " + event.Exit.String()
	}
	_, err := fmt.Printf("%s %s %s %s%s\n", event.Time.Local().Format(time.RFC3339Nano), event.UID, event.Name, event.Type, exit)
	return err
}
