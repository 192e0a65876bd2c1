//go:build linux

package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/foreign"
)

// commandsOf returns what a remedy says is to be run.
func commandsOf(remedy string) (commands []string) {
	for i, part := range strings.Split(remedy, "`") {
		if i%2 == 1 {
			commands = append(commands, part)
		}
	}
	return commands
}

func legacyChain(dropped ...int) foreign.Chain {
	c := chainOf("ip", "filter", "FORWARD", dropped...)
	c.Legacy = true
	return c
}

// TestRemediesAreOfTheRightFirewall, and say no more than is needed.
func TestRemediesAreOfTheRightFirewall(t *testing.T) {
	filter := func(dropped ...int) foreign.Chain { return chainOf("ip", "filter", "FORWARD", dropped...) }
	for _, test := range []struct {
		name     string
		chain    foreign.Chain
		owner    string
		commands []string
	}{
		{"Docker", by(filter(outward, answers, published), "DOCKER-USER", "DOCKER-FORWARD"), "Docker: chain FORWARD of table ip filter drops what machines send by mvm-0 (its policy", []string{
			"iptables-nft -I DOCKER-USER -i mvm-0 -j ACCEPT", "iptables-nft -I DOCKER-USER -o mvm-0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
		}},
		{"Docker beside ufw", by(filter(outward), "DOCKER-USER", "ufw-before-forward"), "Docker:", []string{"iptables-nft -I DOCKER-USER -i mvm-0 -j ACCEPT"}},
		{"Docker by iptables-legacy", by(legacyChain(published), "DOCKER-USER"), "Docker: chain FORWARD of table filter of iptables-legacy drops what comes to their published ports", []string{
			"iptables-legacy -I DOCKER-USER -o mvm-0 -m conntrack --ctstate DNAT -j ACCEPT",
		}},
		{"ufw", by(filter(outward, published), "ufw-before-forward"), "ufw:", []string{"ufw route allow in on mvm-0 out on eth0", "ufw route allow in on eth0 out on mvm-0 to 10.64.0.0/18"}},
		{"ufw without its first rules", by(filter(answers), "ufw-before-forward"), "ufw:", []string{"iptables-nft -I FORWARD -o mvm-0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}},
		{"firewalld", chainOf("inet", "firewalld", "filter_FORWARD", outward), "firewalld:", []string{
			"firewall-cmd --zone=trusted --add-interface=mvm-0", "firewall-cmd --permanent --zone=trusted --add-interface=mvm-0",
		}},
		{"firewalld by iptables", by(filter(outward), "FORWARD_IN_ZONES"), "firewalld:", []string{
			"firewall-cmd --zone=trusted --add-interface=mvm-0", "firewall-cmd --permanent --zone=trusted --add-interface=mvm-0",
		}},
		{"iptables", filter(outward), "iptables:", []string{"iptables-nft -I FORWARD -i mvm-0 -j ACCEPT"}},
		{"iptables-legacy", legacyChain(answers), "iptables:", []string{"iptables-legacy -I FORWARD -o mvm-0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}},
		{"nftables", chainOf("inet", "filter", "forward", outward, answers, published), "nftables:", []string{
			"nft insert rule inet filter forward iifname mvm-0 accept", "nft insert rule inet filter forward oifname mvm-0 ct state established,related accept",
			"nft insert rule inet filter forward oifname mvm-0 ct status dnat accept",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t)
			f.ruleset.Chains = append(f.ruleset.Chains, test.chain)
			var found []Finding
			for _, finding := range f.run() {
				if finding.Check == otherFirewalls {
					found = append(found, finding)
				}
			}
			if len(found) != 1 || !strings.HasPrefix(found[0].Evidence, test.owner) || found[0].Severity != Warning {
				t.Fatalf("%+v, want one of %s", found, test.owner)
			}
			if commands := commandsOf(found[0].Remedy); !slices.Equal(commands, test.commands) {
				t.Errorf("%q, want %q", commands, test.commands)
			}
		})
	}
}

// TestEachFirewallIsTold: who has two that drop needs both remedies.
func TestEachFirewallIsTold(t *testing.T) {
	f := newFake(t)
	f.ruleset.Chains = append(f.ruleset.Chains, chainOf("inet", "firewalld", "filter_FORWARD", outward), legacyChain(outward))
	var owners []string
	for _, finding := range f.run() {
		if finding.Check == otherFirewalls {
			owner, _, _ := strings.Cut(finding.Evidence, ":")
			owners = append(owners, owner)
		}
	}
	if !slices.Equal(owners, []string{firewalld, "iptables"}) {
		t.Error(owners)
	}
}
