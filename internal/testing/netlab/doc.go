//go:build linux

// Package netlab is an internet for tests, and a guest: in network namespaces that a test makes, so that neither the host's links nor its rules are ever touched.
//
// There are only two types: a [Lab] is a stand-in for the host whose uplink leads to servers, and a [Guest] is a Linux behind a slot's TAP.
//
//	guest eth0 ── TAP [slot … hub] ── Lab.Host ── wan0 ── servers
//	                                       └───── lan0 ── the private net
//
// Servers note who came: [Lab.Came] says what arrived. That something does not arrive is told without waiting by sending what must arrive after it, by the same way.
//
// # Caveats
//
// Addresses of the servers are public ones, since a policy treats those that are reserved for documentation as reserved. Nothing of it leaves the namespaces.
package netlab
