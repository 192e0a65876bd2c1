//go:build linux

package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// The firewalls whose own way of saying what may pass is known.
const (
	docker    = "Docker"
	ufw       = "ufw"
	firewalld = "firewalld"
)

// owner tells whose a chain is, by where the dropped packets went. Docker's chain for users comes first where it is asked: what it accepts, no other firewall in that table sees.
func (d dropped) owner() string {
	began := func(prefix string) bool {
		return slices.ContainsFunc(d.through, func(chain string) bool { return strings.HasPrefix(chain, prefix) })
	}
	switch {
	case slices.Contains(d.through, "DOCKER-USER"):
		return docker
	case began("ufw-"):
		return ufw
	case d.Table == "firewalld", began("FORWARD_IN_ZONES"), began("FORWARD_direct"):
		return firewalld
	case d.iptables() != "":
		return "iptables"
	}
	return "nftables"
}

// iptables is the command for the chain, where it is one of iptables.
func (d dropped) iptables() string {
	switch {
	case d.Legacy:
		return "iptables-legacy"
	case d.Family == "ip" && d.Table == "filter" && d.Name == "FORWARD":
		return "iptables-nft"
	}
	return ""
}

// remedy is what somebody who may change that firewall does, in its own words.
func (d dropped) remedy() string {
	commands, note := d.nftRules()
	switch d.owner() {
	case docker:
		commands, note = d.iptablesRules("DOCKER-USER"), "Docker asks that chain first and leaves it alone; a reboot empties it, so a unit that starts after docker.service has to do it again"
	case ufw:
		commands, note = d.ufwRules()
	case firewalld:
		commands, note = d.firewalldRules()
	case "iptables":
		commands, note = d.iptablesRules("FORWARD"), "and where these rules are loaded from, or they are lost when that is done again"
	}
	return "`" + strings.Join(commands, "`, `") + "` (" + note + ")"
}

func (d dropped) iptablesRules(chain string) (commands []string) {
	if d.ways[outward] {
		commands = append(commands, fmt.Sprintf("%s -I %s -i %s -j ACCEPT", d.iptables(), chain, d.view.Link))
	}
	var states []string
	if d.ways[answers] {
		states = append(states, "RELATED", "ESTABLISHED")
	}
	if d.ways[published] {
		states = append(states, "DNAT")
	}
	if len(states) > 0 {
		commands = append(commands, fmt.Sprintf("%s -I %s -o %s -m conntrack --ctstate %s -j ACCEPT", d.iptables(), chain, d.view.Link, strings.Join(states, ",")))
	}
	return commands
}

func (d dropped) nftRules() (commands []string, note string) {
	insert := fmt.Sprintf("nft insert rule %s %s %s", d.Family, d.Table, d.Name)
	if d.ways[outward] {
		commands = append(commands, fmt.Sprintf("%s iifname %s accept", insert, d.view.Link))
	}
	if d.ways[answers] {
		commands = append(commands, fmt.Sprintf("%s oifname %s ct state established,related accept", insert, d.view.Link))
	}
	if d.ways[published] {
		commands = append(commands, fmt.Sprintf("%s oifname %s ct status dnat accept", insert, d.view.Link))
	}
	return commands, "and in the file that this table is loaded from, such as /etc/nftables.conf, or they are lost when that is done again"
}

// ufwRules: routes, as ufw calls them. What answers them is accepted by ufw's own rules, unless somebody took these out.
func (d dropped) ufwRules() (commands []string, note string) {
	if d.ways[answers] {
		return d.iptablesRules("FORWARD"), "and put into /etc/ufw/before.rules what it had there for ufw-before-forward: RELATED,ESTABLISHED"
	}
	by := func(way, link string) string {
		if link == "" {
			return ""
		}
		return " " + way + " on " + link
	}
	if d.ways[outward] {
		commands = append(commands, "ufw route allow"+by("in", d.view.Link)+by("out", d.view.Uplink))
	}
	if d.ways[published] {
		commands = append(commands, "ufw route allow"+by("in", d.view.Uplink)+by("out", d.view.Link)+" to "+d.to())
	}
	return commands, "ufw keeps these; the one to machines is for published ports alone: what else comes, their namespaces drop"
}

// to is what ufw calls the machines' addresses.
func (d dropped) to() string {
	if !d.view.Subnet.IsValid() {
		return "any"
	}
	return d.view.Subnet.String()
}

// firewalldRules: a rule within firewalld's table would go with its next reload.
func (d dropped) firewalldRules() (commands []string, note string) {
	add := "--zone=trusted --add-interface=" + d.view.Link
	return []string{"firewall-cmd " + add, "firewall-cmd --permanent " + add},
		"firewalld then lets pass what comes by that link, to the host itself too; what a machine may send is still decided in its own namespace, and our table drops what is for the host"
}
