#!/usr/bin/env bash
# A real Slurm on this machine: one munge, one controller, one node daemon, everything under one folder.
#
#   tests/cluster/slurm.sh start DIR [CPUS]   then: export SLURM_CONF=DIR/slurm.conf
#   tests/cluster/slurm.sh stop DIR
#
# Needs Debian's slurm-wlm and munge, and root or one user for all of it. Listens on ports of its own, so that a
# Slurm that already runs here is left alone.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/usr/local/sbin

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# -ge 2 ]] || usage
verb=$1
mkdir -p "$2"
dir=$(realpath "$2")
cpus=${3:-4}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

write_config() {
  local host user
  host=$(hostname -s)
  user=$(id -un)
  cat > "$dir/slurm.conf" <<CONF
ClusterName=difomtest
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=2
OverTimeLimit=0
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  printf 'Name=gpu File=/dev/%s\n' null zero > "$dir/gres.conf"  # two devices that every machine has, called GPUs
}

start() {
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null || { echo "$program is not installed: apt-get install slurm-wlm munge" >&2; exit 2; }
  done
  mkdir -p "$dir/munge" "$dir/state" "$dir/spool"
  chmod 755 "$dir"
  chmod 711 "$dir/munge"
  head -c 1024 /dev/urandom > "$dir/munge/key"
  chmod 400 "$dir/munge/key"
  munged --force --key-file "$dir/munge/key" --socket "$dir/munge/socket" --pid-file "$dir/munge/pid" \
    --log-file "$dir/munge/log" --seed-file "$dir/munge/seed"
  write_config
  export SLURM_CONF=$dir/slurm.conf
  slurmctld
  slurmd
  for _ in $(seq 60); do
    if sinfo --noheader --format %T 2> /dev/null | grep -qE '^(idle|mixed|allocated)$'; then
      sinfo
      return
    fi
    sleep 0.5
  done
  tail -n 20 "$dir"/*.log >&2
  stop
  exit 1
}

stop() {
  export SLURM_CONF=$dir/slurm.conf
  scancel --user "$(id -un)" 2> /dev/null || true
  for pidfile in "$dir/slurmd.pid" "$dir/slurmctld.pid" "$dir/munge/pid"; do
    [[ -f $pidfile ]] || continue
    pid=$(< "$pidfile")
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
  done
}

case $verb in
  start) start ;;
  stop) stop ;;
  *) usage ;;
esac
